// Layouts that are recognised but not run by a kind of their own yet: which kinds their files hold, for one line each.
// A kind that gets a file in kinds/ takes its lines from here by naming the same kinds.
import type { Folder } from "./folder.ts";

export interface Placeholder {
  readonly files: readonly string[];
  /** Entries of kinds.json. */
  readonly kinds: readonly string[];
}

const attentionTopics = ["analysis", "linear", "performer", "sparse", "successors", "transnormer"];
const bagelTopics = ["flow", "inference", "mot", "vision"];
const reinforcementFiles = [
  "a2c",
  "curves",
  "distributions",
  "estimators",
  "policy_extras_verl",
  "policy_losses_verl",
  "ppo",
  "preference",
  "trpo",
];

/** @param unclaimed files that no kind has taken for itself. */
export function placeholders(folder: Folder, unclaimed: ReadonlySet<string>): Placeholder[] {
  const free = [...folder.files].filter((name) => unclaimed.has(name));
  if (free.includes("expected.json") || folder.parentName === "speculative") {
    const kind = folderKind(folder);
    if (kind) return [{ files: free, kinds: [kind] }];
  }
  return free.flatMap((name) => filePlaceholder(folder, name) ?? []);
}

/** Folders that are one case. */
function folderKind(folder: Folder): string | undefined {
  const expected = folder.peek("expected.json") ?? {};
  if ("conversations" in expected && "cases" in expected) return "models/chat-templates";
  if (folder.parentName === "speculative") return `models/speculative/${folder.name}`;
  return undefined;
}

function filePlaceholder(folder: Folder, name: string): Placeholder | undefined {
  if (!name.endsWith(".json")) return undefined;
  const topic = name.slice(0, -".json".length);
  const content = folder.peek(name);
  if (!content) return undefined;
  const tensors = `${topic}.safetensors`;
  const { cases } = content;
  if (folder.has(tensors) && typeof cases === "object" && cases !== null && !Array.isArray(cases)) {
    const area = attentionTopics.includes(topic) ? "attention/" : bagelTopics.includes(topic) ? "bagel/" : "";
    const groups = [...Object.keys(cases), ...tablesOf(content)].map((caseName) => `${area}${topic}/${groupOf(topic, caseName)}`);
    return { files: [name, tensors], kinds: [...new Set(groups)] };
  }
  if (folder.name === "environments" || "trajectories" in content) return { files: [name], kinds: [`rl/environments/${topic}`] };
  if (!reinforcementFiles.includes(topic)) return undefined;
  return { files: [name], kinds: sectionsOf(content).map((section) => `rl/${topic}/${section}`) };
}

/** Tables beside the cases of a topic: everything that is neither words nor a single number. */
const tablesOf = (content: Readonly<Record<string, unknown>>): string[] =>
  Object.entries(content).flatMap(([key, value]) =>
    key !== "cases" && key !== "library" && typeof value === "object" && value !== null ? [key] : [],
  );

const sectionsOf = (content: Readonly<Record<string, unknown>>): string[] =>
  tablesOf({ ...content, versions: undefined, batches: undefined, dpoInputs: undefined }).concat("cases" in content ? ["cases"] : []);

/** Cases of one mechanism: the first part of their names, which in `linear` and `mot` are sizes and samples. */
function groupOf(topic: string, caseName: string): string {
  const [first] = caseName.split(".");
  if (topic === "linear") return first === "softmax" ? "softmax" : "elu";
  if (topic === "mot") return first === "model" || first === "models" || first === "specialTokens" ? "model" : "sequences";
  return first;
}
