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
        {"u": number, "field": floats, "o": number, **dict.fromkeys(("locations", "filters", "k"), count),
         **dict.fromkeys(("scale", "sigma", "rest", "eps"), "fp32")},
        mode=mode, SIZE=1024, BLOCK=16, num_warps=16,
    )
build(
    kernels._project_kernel,
    {"g": number, "o": number, "product": floats, "count": count, "filters": count}, TILE=16, BLOCK=64,
)
build(
    kernels._share_kernel,
    {**dict.fromkeys(("product", "field", "divisor", "g_field"), floats), "locations": count, "filters": count,
     **dict.fromkeys(("sigma", "rest", "eps"), "fp32")},
    SIZE=1024,
)
weights = {**dict.fromkeys(("weight", "norm"), floats), "elements": count, "eps": "fp32"}
build(kernels._unit_norm_kernel, {**weights, "unit": floats}, CHUNK=1024)
build(kernels._unit_norm_backward_kernel, {**weights, "gradient": floats, "to_weight": floats}, CHUNK=1024)
"""


EVERY = [("bf16", "90"), ("fp32", "80"), ("fp32", "100")]  # each type of number, each of the GPUs
IN_ONE_PROCESS = f"""
import sys
code = sys.argv[1]
for case in {EVERY}:
    sys.argv[1:] = case
    exec(code, {{"__name__": "__main__"}})
    print(*case, flush=True)
"""


def test_every_kernel_compiles(monkeypatch):
    """In one process, which loads torch and Triton once for all."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    done = subprocess.run([sys.executable, "-c", IN_ONE_PROCESS, COMPILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    assert done.stdout.splitlines() == [" ".join(case) for case in EVERY]
