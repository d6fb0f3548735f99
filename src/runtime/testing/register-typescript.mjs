// For `node --import`: lets a child process run .ts files.
import { register } from "node:module";

register("./typescript-hooks.mjs", import.meta.url);
