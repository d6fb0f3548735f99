// A process with two commands that run until they are interrupted: one that heeds the signal, one that does not.
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { defineCommand } from "../command.ts";
import { runProcess } from "../process.ts";

const slow = (name: string, heed: boolean) =>
  defineCommand({
    name,
    summary: "Wait",
    schema: z.object({}),
    examples: [],
    run: async (_, context) => {
      context.signal.addEventListener("abort", () => context.print("asked to stop"));
      context.print("ready");
      await sleep(60_000, undefined, heed ? { signal: context.signal } : {});
    },
  });

const commands = [slow("heed", true), slow("ignore", false)];
await runProcess(commands.map((command) => ({ ...command, load: async () => command })));
