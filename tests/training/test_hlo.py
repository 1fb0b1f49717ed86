"""What is read from compilers' texts; no compiler for an accelerator is needed."""

import jax
import jax.numpy as jnp
import pytest

from training import hlo

# 100 cycles, a loop of 5 x (20 + 1), one whose end is data, 3, and branches of 7 and 40.
PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %add = f32[8]{0} add(%p, %p), backend_config={"estimated_cycles":"1000"}
}

%body (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one), backend_config={"estimated_cycles":"1"}
  %x = f32[8]{0:T(128)} get-tuple-element(%c), index=1
  %y = f32[8]{0:T(128)} fusion(%x), calls=%fused, backend_config={"x":{"estimated_cycles":"20"}}
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%next, %y)
}

%condition (c: (s32[], f32[8])) -> pred[] {
  %c.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%c.1), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%body.2 (d: (f32[8], f32[])) -> (f32[8], f32[]) {
  %d = (f32[8]{0}, f32[]) parameter(0)
  %sort = f32[8]{0} sort(%d), backend_config={"estimated_cycles":"3"}
  ROOT %u = (f32[8]{0}, f32[]) tuple(%sort, %sort)
}

%condition.2 (d: (f32[8], f32[])) -> pred[] {
  %d.1 = (f32[8]{0}, f32[]) parameter(0)
  %n = f32[] get-tuple-element(%d.1), index=1
  ROOT %less.1 = pred[] compare(%n, %n), direction=LT
}

%cheap (e: f32[8]) -> f32[8] {
  %e = f32[8]{0} parameter(0)
  ROOT %neg = f32[8]{0} negate(%e), backend_config={"estimated_cycles":"7"}
}

%dear (g: f32[8]) -> f32[8] {
  %g = f32[8]{0} parameter(0)
  ROOT %exp = f32[8]{0} exponential(%g), backend_config={"estimated_cycles":"40"}
}

ENTRY %main (x.1: f32[8], b: pred[]) -> f32[8] {
  %x.1 = f32[8]{0:T(128)} parameter(0), sharding={replicated}
  %b = pred[] parameter(1)
  %two = s32[]{:T(128)} constant(2)
  %start = s32[]{:T(128)} copy(%two)
  %first = f32[8]{0:T(128)} fusion(%x.1), calls=%fused, backend_config={"estimated_cycles":"100"}
  %v = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%start, %first)
  %while.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%v), condition=%condition, body=%body
  %w = f32[8]{0:T(128)} get-tuple-element(%while.1), index=1
  %v.2 = (f32[8]{0}, f32[]) tuple(%w, %w)
  %while.2 = (f32[8]{0}, f32[]) while(%v.2), condition=%condition.2, body=%body.2
  %z = f32[8]{0} get-tuple-element(%while.2), index=0
  ROOT %r = f32[8]{0} conditional(%b, %z, %z), branch_computations={%cheap, %dear}
}
"""


def test_a_loop_counts_as_often_as_it_turns():
    module = hlo.parse(PROGRAM)
    assert module.entry == "main" and module.count("while") == 2
    assert module.count("sort", "conditional") == 2
    cycles = hlo.total(module, hlo.estimated_cycles)
    assert cycles == (100 + 5 * (20 + 1) + 3 + 40, 1)
    # Where the compiler has noted how often, that holds, also without a constant to compare with.
    noted = 'condition=%condition.2, backend_config={"known_trip_count":{"n":"4"}}'
    module = hlo.parse(PROGRAM.replace("condition=%condition.2", noted))
    cycles = hlo.total(module, hlo.estimated_cycles)
    assert cycles == (100 + 5 * (20 + 1) + 4 * 3 + 40, 0)


def test_of_two_times_of_a_kernel_the_first_counts():
    costs = '"reification_cost":[{"exec_time_us":1.5e-1,"name":""},{"exec_time_us":9,"name":"sol"}]'
    module = hlo.parse(PROGRAM.replace('"estimated_cycles":"20"', costs))
    us, _ = hlo.total(module, hlo.exec_time_us)
    assert us == pytest.approx(5 * 0.15)


def test_the_text_of_a_real_program_can_be_read():
    def step(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sort(x) + i, x)

    compiled = jax.jit(step).lower(jnp.ones(8)).compile()
    module = hlo.parse(compiled.as_text() or "")
    runs, open_loops = hlo.total(module, lambda _, op: op.kind == "add" and "s32" in op.shape)
    assert module.count("while") == 1 and module.count("sort") == 1
    assert open_loops == 0 and runs % 5 == 0


# A gather of 4 KiB from 1 KiB on each of four devices, at once and in two parts; in a loop of 5 an
# all-reduce of 48 bytes inside a fusion, and one of two arrays behind a call; a reduce-scatter that
# runs beside other work; what is sent to a neighbour.
SENT = """\
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%fused (p: f32[12]) -> f32[12] {
  %p = f32[12]{0} parameter(0)
  ROOT %r = f32[12]{0} all-reduce(%p), replica_groups=[1,4]<=[4], to_apply=%sum
}

%called (p.1: f32[8], q.1: bf16[8]) -> (f32[8], bf16[8]) {
  %p.1 = f32[8]{0} parameter(0)
  %q.1 = bf16[8]{0} parameter(1)
  ROOT %r.1 = (f32[8]{0}, bf16[8]{0}) all-reduce(%p.1, %q.1), replica_groups={}, to_apply=%sum
}

%beside (p.2: f32[1024]) -> f32[256] {
  %p.2 = f32[1024]{0} parameter(0)
  ROOT %rs = f32[256]{0} reduce-scatter(%p.2), dimensions={0}, to_apply=%sum
}

%body (c: (s32[], f32[12])) -> (s32[], f32[12]) {
  %c = (s32[], f32[12]{0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[12]{0} get-tuple-element(%c), index=1
  %y = f32[12]{0} fusion(%x), kind=kCustom, calls=%fused
  ROOT %t = (s32[], f32[12]{0}) tuple(%i, %y)
}

%condition (c.1: (s32[], f32[12])) -> pred[] {
  %c.1 = (s32[], f32[12]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x.1: f32[256], u: f32[12], w: bf16[8], v: f32[1024]) -> f32[1024] {
  %x.1 = f32[256]{0} parameter(0)
  %u = f32[12]{0} parameter(1)
  %w = bf16[8]{0} parameter(2)
  %v = f32[1024]{0} parameter(3)
  %h = f32[8]{0} slice(%u), slice={[0:8]}
  %whole = f32[1024]{0:T(1024)} all-gather(%x.1), dimensions={0}
  %begun = (f32[256]{0}, f32[1024]{0}) all-gather-start(%x.1), dimensions={0}
  %loop = (s32[], f32[12]{0}) while(%u), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %both = (f32[8]{0}, bf16[8]{0}) call(%h, %w), to_apply=%called
  %gathered = f32[1024]{0} all-gather-done(%begun)
  %start = ((f32[1024]{0}), f32[256]{0}) async-start(%v), calls=%beside
  %done = f32[256]{0} async-done(%start)
  %sent = (f32[256]{0}, f32[256]{0}) collective-permute-start(%x.1), source_target_pairs={{0,1}}
  ROOT %got = f32[256]{0} collective-permute-done(%sent)
}
"""


def test_collectives_are_found_wherever_they_are():
    gather = hlo.Collective("all-gather", 4096, 1)
    assert hlo.collectives(hlo.parse(SENT)) == [
        gather,
        hlo.Collective("all-reduce", 48, 5),
        hlo.Collective("all-reduce", 32 + 16, 1),
        gather,
        hlo.Collective("reduce-scatter", 4096, 1),
        hlo.Collective("collective-permute", 1024, 1),
    ]


# One gather beside two kernels of a TPU, as it prints them.
CHAINED = """\
%begin (p: f32[256]) -> f32[1024] {
  %p = f32[256]{0} parameter(0)
  ROOT %gather = f32[1024]{0} all-gather(%p), channel_id=4, frontend_attributes={chain_id="1"}
}

%end (p.1: f32[256]) -> f32[1024] {
  %p.1 = f32[256]{0} parameter(0)
  ROOT %gather.1 = f32[1024]{0} all-gather(%p.1), channel_id=4, frontend_attributes={chain_id="1"}
}

ENTRY %main (x: f32[256]) -> f32[1024] {
  %x = f32[256]{0} parameter(0)
  %one = f32[1024]{0} fusion(%x), kind=kCustom, calls=%begin
  %two = f32[1024]{0} fusion(%x), kind=kCustom, calls=%end
  ROOT %other = f32[1024]{0} all-gather(%x), channel_id=5
}
"""


def test_a_collective_beside_several_kernels_is_one():
    gather = hlo.Collective("all-gather", 4096, 1)
    assert hlo.collectives(hlo.parse(CHAINED)) == [gather, gather]


def test_collectives_of_a_real_program():
    """A sum over the devices, 7 times in a loop: one array of 96 bytes."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")

    def step(x):
        def turn(_, x):
            return x + jax.lax.psum(x, "data")

        return jax.lax.fori_loop(0, 7, turn, x)

    mapped = jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    text = jax.jit(mapped).lower(jnp.ones((4, 24))).compile().as_text()
    assert hlo.collectives(hlo.parse(text or "")) == [hlo.Collective("all-reduce", 96, 7)]


# Convolutions of 3x3 over 64 channels to 128, as cuDNN takes them, forward and to both sides.
CONVOLUTIONS = """\
ENTRY %main (x: bf16[2,8,8,64], k: bf16[128,3,3,64], y: bf16[2,8,8,128]) -> bf16[2,8,8,128] {
  %x = bf16[2,8,8,64]{3,2,1,0} parameter(0)
  %k = bf16[128,3,3,64]{3,2,1,0} parameter(1)
  %y = bf16[2,8,8,128]{3,2,1,0} parameter(2)
  %f = (bf16[2,8,8,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %i = (bf16[2,8,8,64]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %w = (bf16[128,3,3,64]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  ROOT %z = bf16[2,8,8,128]{3,2,1,0} fusion(%y, %y), kind=kLoop, calls=%fused
}
"""


def test_convolutions_of_a_gpu_and_the_bytes_of_its_kernels():
    ops = hlo.parse(CONVOLUTIONS).computations["main"]
    once = 2 * (2 * 8 * 8 * 128) * (3 * 3 * 64)
    flops = {name: hlo.convolution_flops(ops, ops[name]) for name in "fiwz"}
    assert flops == {"f": once, "i": once, "w": once, "z": 0}
    x, k, y = 2 * 8 * 8 * 64 * 2, 128 * 9 * 64 * 2, 2 * 8 * 8 * 128 * 2
    assert hlo.traffic(ops, ops["f"]) == hlo.traffic(ops, ops["w"]) == x + k + y
    assert hlo.traffic(ops, ops["z"]) == 2 * y  # what is read twice is read once
