"""Training through the kernels' operators: mixed precision, and Lightning's data-parallel processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kernels.attention import attend

ROOT = Path(__file__).parents[2]
PARALLEL = """
import sys
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset
from tests.kernels.test_attention_training import Reader

class Task(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Reader()
    def training_step(self, batch, _):
        loss = self.model(*batch).square().mean()
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    devices, result = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Task()
    data = TensorDataset(torch.randn(16, 5, 8), torch.randn(16, 9, 8))
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=True,
    )
    trainer.fit(task, DataLoader(data, batch_size=16 // devices, shuffle=False))
    if trainer.is_global_zero:
        torch.save(task.model.state_dict(), result)
"""


class Reader(nn.Module):
    """Tokens read tokens with a trained bias, and every key's received mass is part of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_kv = nn.Linear(8, 8), nn.Linear(8, 16)
        self.bias = nn.Parameter(torch.zeros(1, 2, 5, 9))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.to_kv(source).chunk(2, dim=-1))
        read = attend(q, k, v, bias=self.bias, want=frozenset({"mass", "entropy"}))
        return read.out.float().mean(dim=(1, 3)) + read.mass.mean(dim=(1, 2))[:, None] - read.entropy.mean(dim=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_training_follows_full_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, source = torch.randn(4, 5, 8), torch.randn(4, 9, 8)
    losses = {}
    for name, mixed in (("full", False), ("mixed", True)):
        torch.manual_seed(1)
        model = Reader()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", enabled=mixed and dtype == torch.float16)
        losses[name] = []
        for _ in range(20):
            with torch.autocast("cpu", dtype, enabled=mixed):
                loss = model(x, source).square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
            scaler.step(optimizer)
            scaler.update()
            losses[name].append(loss.item())
    assert losses["full"][-1] < 0.9 * losses["full"][0]
    torch.testing.assert_close(torch.tensor(losses["mixed"]), torch.tensor(losses["full"]), rtol=3e-2, atol=1e-2)


@pytest.mark.unchecked
def test_two_data_parallel_processes_learn_what_one_learns(tmp_path: Path) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    learnt = {}
    for devices in (1, 2):
        result = tmp_path / f"{devices}.pt"
        command = [sys.executable, str(script), str(devices), str(result)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        learnt[devices] = torch.load(result, weights_only=True)
    for name, value in learnt[1].items():
        torch.testing.assert_close(
            learnt[2][name], value, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
