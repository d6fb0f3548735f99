import { expect, test } from "vitest";
import { readsLogitsAlone } from "./drafter-spec.ts";

test.each([
  ["none", true],
  ["lookup,numTokens=8", true],
  ["suffix", true],
  ["draft:models/small.gguf,numTokens=4", true],
  ["medusa:runs/heads", false],
  ["runs/heads", false],
  // Folders whose names begin as a kind does.
  ["draft-heads", false],
  ["lookup.heads/a,b", false],
])("%s drafts from logits alone: %s", (spec, expected) => {
  expect(readsLogitsAlone(spec)).toBe(expected);
});
