// Counts against counting; removal against never having added.
import fc from "fast-check";
import { expect, test } from "vitest";
import { SuffixTrie } from "./suffix-trie.ts";

const texts = fc.array(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 30 }), { minLength: 1, maxLength: 5 });

/** How often each sequence of up to `depth` tokens occurs, by looking everywhere. */
function counted(all: readonly (readonly number[])[], depth: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of all)
    for (let start = 0; start < text.length; start++)
      for (let n = 1; n <= depth && start + n <= text.length; n++) {
        const key = text.slice(start, start + n).join();
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
  return counts;
}

function contents(trie: SuffixTrie, node = 0, prefix: readonly number[] = []): [string, number][] {
  return trie.children(node).flatMap((child) => {
    const path = [...prefix, child.token];
    return [[path.join(), child.count] as [string, number], ...contents(trie, child.node, path)];
  });
}

function check(trie: SuffixTrie, all: readonly (readonly number[])[], depth: number): void {
  const expected = counted(all, depth);
  const found = contents(trie);
  expect(new Map(found)).toEqual(expected);
  expect(found.length).toBe(expected.size);
  expect(trie.size).toBe(expected.size + 1);
  const walk = (node: number): void => {
    const children = trie.children(node);
    if (children.length > 0) expect(trie.count(trie.likeliestChild(node))).toBe(Math.max(...children.map(({ count }) => count)));
    for (const { node: child, token } of children) {
      expect(trie.child(node, token)).toBe(child);
      walk(child);
    }
  };
  walk(0);
}

test("holds the counts of all sequences, and forgets what is removed", () => {
  fc.assert(
    fc.property(texts, fc.integer({ min: 1, max: 6 }), (all, depth) => {
      const trie = new SuffixTrie(depth, 4);
      for (const text of all) {
        const suffixes = trie.start();
        for (const token of text) trie.add(suffixes, token);
        // The nodes are those of the last tokens.
        for (let d = 1; d <= depth; d++) {
          let node = d <= text.length ? 0 : -1;
          for (const token of d <= text.length ? text.slice(text.length - d) : []) node = trie.child(node, token);
          expect(suffixes[d]).toBe(node);
        }
      }
      check(trie, all, depth);
      for (let gone = 1; gone <= all.length; gone++) {
        trie.remove(all[gone - 1]);
        check(trie, all.slice(gone), depth);
      }
      // Freed nodes are used again.
      const suffixes = trie.start();
      for (const token of all[0]) trie.add(suffixes, token);
      check(trie, [all[0]], depth);
    }),
    { numRuns: 60 },
  );
});

test("following without counting finds what is there", () => {
  const trie = new SuffixTrie(4);
  const text = [1, 2, 3, 1, 2, 4];
  const added = trie.start();
  for (const token of text) trie.add(added, token);
  const nodes = trie.start();
  for (const token of [9, 1, 2]) trie.follow(nodes, token);
  expect(trie.count(nodes[2])).toBe(2);
  expect(nodes[3]).toBe(-1);
  expect(trie.children(nodes[2]).map(({ token }) => token)).toEqual([3, 4]);
});
