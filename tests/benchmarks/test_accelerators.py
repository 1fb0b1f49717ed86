"""What is read from compilers' texts; no compiler for an accelerator is needed."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerators, machine_code

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
    module = machine_code.parse(PROGRAM)
    assert module.entry == "main" and module.count("while") == 2
    assert module.count("sort", "conditional") == 2
    cycles = machine_code.total(module, machine_code.estimated_cycles)
    assert cycles == (100 + 5 * (20 + 1) + 3 + 40, 1)
    # Where the compiler has noted how often, that holds, also without a constant to compare with.
    noted = 'condition=%condition.2, backend_config={"known_trip_count":{"n":"4"}}'
    module = machine_code.parse(PROGRAM.replace("condition=%condition.2", noted))
    cycles = machine_code.total(module, machine_code.estimated_cycles)
    assert cycles == (100 + 5 * (20 + 1) + 4 * 3 + 40, 0)


def test_of_two_times_of_a_kernel_the_first_counts():
    costs = '"reification_cost":[{"exec_time_us":1.5e-1,"name":""},{"exec_time_us":9,"name":"sol"}]'
    module = machine_code.parse(PROGRAM.replace('"estimated_cycles":"20"', costs))
    us, _ = machine_code.total(module, machine_code.exec_time_us)
    assert us == pytest.approx(5 * 0.15)


# x and z, each of 2 KiB, are copied to VMEM (S(1)) beforehand, z in two parts; y is made there and
# copied to HBM.
MEMORY = """\
ENTRY %main (x: f32[512], z: f32[512], c: f32[]) -> (f32[512], f32[512]) {
  %x = f32[512]{0:T(512)} parameter(0)
  %z = f32[512]{0:T(512)} parameter(1)
  %c = f32[]{:T(128)} parameter(2)
  %copy-start = (f32[512]{0:T(512)S(1)}, f32[512]{0:T(512)}, u32[]{:S(2)}) copy-start(%x)
  %slice-start = ((f32[512]{0:T(512)}), f32[128]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%z)
  %slice-start.1 = ((f32[512]{0:T(512)}), f32[384]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%z)
  %small = f32[64]{0:T(128)S(1)} fusion(%c), kind=kLoop, calls=%fused
  %copy-done = f32[512]{0:T(512)S(1)} copy-done(%copy-start)
  %y = f32[512]{0:T(512)S(1)} fusion(%copy-done, %small), kind=kLoop, calls=%fused
  %copy-start.1 = (f32[512]{0:T(512)}, f32[512]{0:T(512)S(1)}, u32[]{:S(2)}) copy-start(%y)
  %slice-done = f32[128]{0:T(128)S(1)} slice-done(%slice-start)
  %slice-done.1 = f32[384]{0:T(128)S(1)} slice-done(%slice-start.1)
  %a = f32[512]{0:S(1)} custom-call(%slice-done, %slice-done.1), custom_call_target="ConcatBitcast"
  %q = f32[512]{0:T(512)} fusion(%a, %y, /*index=2*/%a), kind=kLoop, calls=%fused
  %copy-done.1 = f32[512]{0:T(512)} copy-done(%copy-start.1)
  ROOT %both = (f32[512]{0:T(512)}, f32[512]{0:T(512)}) tuple(%copy-done.1, %q)
}
"""


def test_copies_to_the_chip_and_from_it_are_traffic_of_who_uses_and_makes_them():
    module = machine_code.parse(MEMORY)
    traffic = machine_code.hbm_bytes(module.computations[module.entry])
    assert traffic == {"small": 4, "y": 2048 + 2048, "q": 2048 + 2048}


# A pipeline of 9 rounds, of which 7 work, of 2 bundles, 4 times 2, and 2; and a loop of 2 bundles
# whose end is data.
KERNEL = """\
= control target key start
LB: loop body
= control target key end

     0   :  { %s0 = inlined_call_operand.hbm [shape: f32[8], index: 0] /* operand 0 */ }
   0x1 LB: > { %s1 = sphi %s9 /* copy :: iteration index, stage = 0 */ } /* Start region 22 */
   0x2   : > { %5 = sbr.rel (%p4_p4) target = $region20 /*
window_bounds: (2, 14, 4, 8)
strides: (2, 14, 4, 8) */ }
   0x3 LB: >> { %p3_p3 = scmp.ge.s32.totalorder %s7, 4 } /* Start region 40 :: Start region 41 */
   0x4   : >> { %9 = sbr.rel (!%p3_p3) target = $region41 }
   0x5   : > { %p1_p1 = scmp.ge.s32.totalorder %s2, 9 /* loop exit test */  ;;  %s3 = smov %s4 }
   0x6   :  { %6 = sbr.rel (!%p1_p1) target = $region22 }
   0x7 LB: > { %p2_p2 = scmp.ge.s32.totalorder %s8, %s9_s2 } /* Start region 51 */
   0x8   :  { %7 = sbr.rel (!%p2_p2) target = $region51 }
   0x9   :  { %8 = vsyncpa [#allocation1], 1 }
"""


def test_instructions_count_as_often_as_their_loops_turn():
    assert machine_code.bundles(KERNEL) == (1 + 7 * (2 + 4 * 2 + 2) + 2 + 1, 1)


def test_ops_that_share_machine_code():
    text = "key:<top-inlining-caller>\nordinal:0\nequivalent_hlos[size=0]:\n"
    text += "key:pad.1\nordinal:1\nequivalent_hlos[size=2]:\n  pad.1\n  pad.4\n"
    text += "key:fusion\nordinal:2\nequivalent_hlos[size=1]:\n  fusion\n"
    assert machine_code.alike(text) == {"pad.1": "pad.1", "pad.4": "pad.1", "fusion": "fusion"}


def test_the_text_of_a_real_program_can_be_read():
    def step(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sort(x) + i, x)

    compiled = jax.jit(step).lower(jnp.ones(8)).compile()
    module = machine_code.parse(compiled.as_text() or "")
    runs, open_loops = machine_code.total(
        module, lambda _, op: op.kind == "add" and "s32" in op.shape
    )
    assert module.count("while") == 1 and module.count("sort") == 1
    assert open_loops == 0 and runs % 5 == 0


def test_tables_of_the_op_and_the_step(capsys):
    device = jax.devices()[0]
    lowered = []

    def cost(program):
        lowered.append(program)
        return {"us": 10.0 + len(lowered), "loops": len(lowered), "temporary MB": 0.5}

    costs = accelerators.op_costs("2x8x8x4:3", "bfloat16", True, device, cost)
    assert len(lowered) == len(costs) == 6
    # (y, dx), each like the map.
    assert all(
        [out.shape for out in jax.tree.leaves(p.out_info)] == [(2, 8, 8, 4)] * 2 for p in lowered
    )
    accelerators.show_op({"2x8x8x4:3": costs})
    out = capsys.readouterr().out
    assert "| copy, us | 11.0 |" in out and "| dropblock | 1.09 |" in out
    assert "| 2x8x8x4:3 | Algorithm 1, literally | 5 | 0.5 |" in out

    accelerators.show_step(
        {"baseline": {"Mcycles": 50.0, "loops": 0}, "dropblock": {"Mcycles": 51.0, "loops": 2}}
    )
    assert "| ratio | 1.020 | - |" in capsys.readouterr().out
