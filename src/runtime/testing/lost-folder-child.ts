// Makes and runs a session with shared initializers after its working directory has been made read-only and then removed.
import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allocate, bufferFrom } from "../buffer.ts";
import { openNativeBackend } from "../native/backend.ts";
import { runOnce, sharedProduct } from "./programs.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-test-"));
process.chdir(folder);
chmodSync(folder, 0o555);
const backend = openNativeBackend({ threads: 1 });
const initializers = new Map([["w", bufferFrom("f32", [1, 4], [1, 2, 3, 4])]]);
const z = allocate("f32", [1, 4]);
const run = () => runOnce(backend, sharedProduct(1, 4), { x: bufferFrom("f32", [1, 1], [3]) }, { z }, { initializers });

run();
const left = readdirSync(folder);
chmodSync(folder, 0o755);
rmSync(folder, { recursive: true });
z.data.fill(0);
run();
backend.dispose();
console.log(left.length > 0 ? `left behind: ${left}` : [...z.data].join());
