"""What every task needs once: configs, run folders, units of work, fitting, comparisons and reports."""
