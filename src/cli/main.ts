#!/usr/bin/env node
// The executable.
import { runProcess } from "./process.ts";

await runProcess();
