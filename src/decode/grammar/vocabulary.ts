// A vocabulary as a trie over the bytes of its tokens, laid out in the order of a walk: a node's subtree follows it, so that a walk that
// leaves subtrees out is one loop over arrays.
export class GrammarVocabulary {
  /** V of the tokenizer; ids above it have no text. */
  readonly size: number;
  /** By node, the root first: the byte that leads to it, its depth, and the node after its subtree. */
  readonly bytes: Uint8Array;
  readonly depths: Int32Array;
  readonly ends: Int32Array;
  /** By node: the tokens that end there are `tokens[tokenStarts[node]] … tokens[tokenStarts[node + 1]]`, the latter not included. */
  readonly tokenStarts: Int32Array;
  readonly tokens: Int32Array;
  /** By node: the length of the longest token below it or at it. */
  readonly longest: Int32Array;
  readonly maxDepth: number;
  private readonly upTo: (Uint32Array | undefined)[] = [];
  private readonly bytesById: readonly (Uint8Array | undefined)[];

  /** @param tokenBytes by id; undefined (or empty) for tokens without text, which no grammar allows. */
  constructor(tokenBytes: readonly (Uint8Array | undefined)[]) {
    this.size = tokenBytes.length;
    this.bytesById = tokenBytes;
    const ids = [...tokenBytes.keys()].filter((id) => (tokenBytes[id]?.length ?? 0) > 0);
    const bytesOf = (id: number): Uint8Array => tokenBytes[id] as Uint8Array;
    ids.sort((a, b) => Buffer.compare(bytesOf(a), bytesOf(b)) || a - b);
    const bytes = [0];
    const depths = [0];
    /** By token in order: its node. */
    const nodes: number[] = [];
    const ends: number[] = [];
    const path = [0];
    let previous: Uint8Array = new Uint8Array(0);
    const close = (depth: number): void => {
      while (path.length > depth + 1) ends[path.pop() as number] = bytes.length;
    };
    for (const id of ids) {
      const own = bytesOf(id);
      let shared = 0;
      while (shared < previous.length && shared < own.length && previous[shared] === own[shared]) shared++;
      close(shared);
      for (let depth = shared; depth < own.length; depth++) {
        path.push(bytes.length);
        bytes.push(own[depth]);
        depths.push(depth + 1);
      }
      nodes.push(path[own.length]);
      previous = own;
    }
    close(0);
    ends[0] = bytes.length;
    this.bytes = Uint8Array.from(bytes);
    this.depths = Int32Array.from(depths);
    this.ends = Int32Array.from(ends);
    this.tokens = Int32Array.from(ids);
    this.longest = Int32Array.from(depths);
    for (let node = bytes.length - 1; node >= 0; node--) {
      for (let child = node + 1; child < ends[node]; child = ends[child]) {
        this.longest[node] = Math.max(this.longest[node], this.longest[child]);
      }
    }
    this.maxDepth = depths.reduce((most, depth) => Math.max(most, depth), 0);
    this.tokenStarts = startsOf(nodes, bytes.length);
  }

  /** The bytes of a token; undefined for one without text. */
  bytesOf(id: number): Uint8Array | undefined {
    return this.bytesById[id];
  }

  /** Bits of the tokens of up to so many bytes. */
  tokensUpTo(length: number): Uint32Array {
    let words = this.upTo[length];
    if (!words) {
      words = new Uint32Array(Math.ceil(this.size / 32));
      for (const id of this.tokens) if ((this.bytesById[id] as Uint8Array).length <= length) words[id >> 5] |= 1 << (id & 31);
      this.upTo[length] = words;
    }
    return words;
  }

  /** The node of a text, or −1. */
  find(text: Uint8Array): number {
    let node = 0;
    for (const byte of text) {
      let child = node + 1;
      const end = this.ends[node];
      while (child < end && this.bytes[child] !== byte) child = this.ends[child];
      if (child >= end) return -1;
      node = child;
    }
    return node;
  }
}

/** Tokens come in the order of the walk: where those of each node start, from the ascending nodes of the tokens. */
function startsOf(nodes: readonly number[], numNodes: number): Int32Array {
  const starts = new Int32Array(numNodes + 1);
  let place = 0;
  for (let node = 0; node <= numNodes; node++) {
    while (place < nodes.length && nodes[place] < node) place++;
    starts[node] = place;
  }
  return starts;
}
