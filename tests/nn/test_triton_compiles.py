"""The kernels compile to machine code for the GPUs people have, which needs a compiler but no GPU."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from engine.nn import fused_triton as kernels

dtype, architecture = sys.argv[1], int(sys.argv[2])
number, floats, count = "*" + dtype, "*fp32", "i32"
bits = 15 if dtype == "bf16" else 31


def build(kernel, signature, **constants):
    options = {"num_warps": constants.pop("num_warps", 4)}
    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert compile(source, target=GPUTarget("cuda", architecture, 32), options=options).asm["cubin"]


sizes = dict.fromkeys(("height", "width", "count", "filters", "K"), count)
for pool in (1, 3):
    build(
        kernels._select_kernel,
        {"u": number, "strong": floats, "total": floats, "field": floats, "source": "*u8", **sizes},
        pool=pool, with_cost=pool == 3, bits=bits, TILE=16, BLOCK=64,
    )
    build(
        kernels._backward_kernel,
        {"u": number, "o": number, "g": number, "divisor": floats, "g_field": floats, "source": "*u8", "g_cost": floats,
         "to_input": number, "to_weight": number, **sizes, "lambda_": "fp32"},
        pool=pool, with_cost=True, split=dtype == "bf16", local=pool == 3, bits=bits, TILE=4, BLOCK=256,
    )
for mode in ("fraction", "mean", "none"):
    build(
        kernels._normalize_kernel,
        {"u": number, "divisor": floats, "o": number, "scale": "fp32",
         **dict.fromkeys(("locations", "filters", "k"), count)},
        mode=mode, SIZE=1024, BLOCK=16, num_warps=16,
    )
build(
    kernels._project_kernel,
    {"g": number, "o": number, "product": floats, "count": count, "filters": count}, TILE=16, BLOCK=64,
)
"""


@pytest.mark.parametrize("architecture", ["80", "90", "100"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_kernel_compiles(dtype, architecture, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    command = [sys.executable, "-c", COMPILE, dtype, architecture]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
