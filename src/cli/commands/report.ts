// `longwave report <run>`: a run folder in, one self-contained HTML page out.
import { z } from "zod";
import { defineCommand } from "../command.ts";
import { formatBytes, printable } from "../render/format.ts";

export const report = defineCommand({
  name: "report",
  summary: "Draw a run as one self-contained HTML page",
  description: [
    "Curves, texts before and after, completions with their rewards, speculation and token trees, configuration and events:",
    "whatever the run recorded. The page needs no network. Works on runs that go on, that broke, and on a folder of several runs,",
    "each of which gets a section.",
  ].join("\n"),
  schema: z.object({
    run: z.string().min(1).describe("Run folder, or a folder whose sub-folders are run folders."),
    output: z.string().min(1).optional().describe("Where to write the page. Default: report.html in the folder."),
    title: z.string().min(1).optional().describe("Heading of the page. Default: the folder's name."),
  }),
  positionals: ["run"],
  hasJson: true,
  examples: [
    { command: "report runs/20260131-120000-quickstart", note: "writes report.html into the run folder" },
    { command: "report runs/20260131-120000-tour --output tour.html", note: "all runs of a folder on one page" },
  ],
  run: async ({ run, ...options }, context) => {
    const { writeReport } = await import("../../report/index.ts");
    const { commandLineOf, phraseOf } = await import("../reproduce.ts");
    const written = await writeReport(run, {
      ...options,
      commands: async (record) => [(await commandLineOf(record, context.commands, context.program)) ?? []].flat(),
      phrase: (record) => phraseOf(record, context.commands, context),
    });
    if (context.json) return context.printJson(written);
    for (const note of written.notes) context.stderr.write(`note: ${printable(note)}\n`);
    context.print(
      `report: ${context.phrase(written.path)} (${formatBytes(written.bytes)}; ${written.runs.length === 1 ? "1 run" : `${written.runs.length} runs`})`,
    );
  },
});
