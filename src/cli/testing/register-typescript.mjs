// Lets a test start src/cli/main.ts as a real process on every Node: `node --import ./register-typescript.mjs main.ts`.
import { register } from "node:module";

register("./typescript-hooks.mjs", import.meta.url);
