import { availableParallelism } from "node:os";
import { describe, expect, it } from "vitest";
import { UsageError } from "../base/errors.ts";
import { countCores, physicalCores, threadsFrom } from "./physical-cores.ts";

const processor = (id: number, socket: number, core: number) =>
  `processor\t: ${id}\nmodel name\t: Any (R) CPU @ 2.0: 1\nphysical id\t: ${socket}\nsiblings\t: 4\ncore id\t\t: ${core}\n`;

describe("physicalCores", () => {
  it("counts two hardware threads of a core once", () => {
    expect(countCores([0, 1, 0, 1].map((core, id) => processor(id, 0, core)).join("\n"))).toBe(2);
  });

  it("counts the same core number of two sockets twice", () => {
    expect(countCores([0, 1].map((socket, id) => processor(id, socket, 0)).join("\n"))).toBe(2);
  });

  it("knows nothing where the kernel names no cores", () => {
    expect(countCores("processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n")).toBeUndefined();
    expect(countCores("")).toBeUndefined();
  });

  it("is at least one and at most what the process may use", () => {
    expect(physicalCores()).toBeGreaterThanOrEqual(1);
    expect(physicalCores()).toBeLessThanOrEqual(availableParallelism());
  });
});

describe("threadsFrom", () => {
  it("prefers the option, then LONGWAVE_THREADS, then the cores", () => {
    expect(threadsFrom(3, { LONGWAVE_THREADS: "5" })).toBe(3);
    expect(threadsFrom(undefined, { LONGWAVE_THREADS: "5" })).toBe(5);
    expect(threadsFrom(undefined, {})).toBe(physicalCores());
  });

  it.each([0, -1, 1.5, Number.NaN, 1025])("refuses the option %d", (value) => {
    expect(() => threadsFrom(value, {})).toThrow(UsageError);
  });

  it("refuses text in LONGWAVE_THREADS", () => {
    expect(() => threadsFrom(undefined, { LONGWAVE_THREADS: "many" })).toThrow(
      "LONGWAVE_THREADS: expected an integer from 1 to 1024, got many",
    );
  });
});
