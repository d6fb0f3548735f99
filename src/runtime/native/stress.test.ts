// Random orders of create, run (some on pool threads), rebind and dispose, in a process whose freed memory is overwritten.
import { describe, expect, it } from "vitest";
import { runChild } from "../testing/child.ts";

const long = process.env.LONGWAVE_TEST_LONG === "1";

describe("stress", () => {
  it(`${long ? 5000 : 300} programs give right results and leave no memory behind`, async () => {
    const { code, signal, stdout, stderr } = await runChild("stress-child.ts", {
      flags: ["--expose-gc"],
      environment: { MALLOC_PERTURB_: "165" },
      args: [String(long ? 5000 : 300), "20240607"],
    });
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: "" });
    const { programs, wrong, bytesPerProgram } = JSON.parse(stdout) as Record<string, number>;
    expect(programs).toBe(long ? 5000 : 300);
    expect(wrong).toBe(0);
    if (long) expect(bytesPerProgram).toBeLessThan(4096);
  });
});
