"""`fusion demo`: one small run of every task on made data, and one page of them all."""
