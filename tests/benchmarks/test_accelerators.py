"""What is read from compilers' texts; no compiler for an accelerator is needed."""

import os

import jax

from benchmarks import accelerators, machine_code
from training import hlo

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
    module = hlo.parse(MEMORY)
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


def cost_in_a_process(variant):
    cores = os.sched_getaffinity(0)
    return {"of the variant": len(variant), "process": os.getpid(), "cores": len(cores)}


def test_a_step_is_compiled_both_ways_in_processes_of_their_own():
    costs = accelerators.step_costs(cost_in_a_process, rounds=1)
    assert costs.keys() == {"baseline", "dropblock"}
    assert all(cost["of the variant"] == len(variant) for variant, cost in costs.items())
    assert len({os.getpid(), *(cost["process"] for cost in costs.values())}) == 3
    cores = len(os.sched_getaffinity(0))
    assert sum(cost["cores"] for cost in costs.values()) == max(cores, 2)
