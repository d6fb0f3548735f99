// A trie over the UTF-16 code units of a vocabulary, as one hash table of edges in typed arrays: all tokens that begin at a place of a
// text are found in one walk, and a quarter of a million tokens take a few megabytes.
export class TokenTrie {
  /** Edge keys (node · 65536 + unit) in two words: the node, and unit + 1 (0 = free). */
  private nodes: Int32Array;
  private units: Uint32Array;
  private targets: Int32Array;
  /** By node: the id of the token that ends there, or −1. */
  private ids: Int32Array;
  private mask: number;
  private numNodes = 1;

  constructor(tokens: Iterable<readonly [token: string, id: number]>) {
    const list = [...tokens];
    const numUnits = list.reduce((sum, [token]) => sum + token.length, 0);
    const size = 2 ** Math.ceil(Math.log2(numUnits * 1.5 + 16));
    this.nodes = new Int32Array(size);
    this.units = new Uint32Array(size);
    this.targets = new Int32Array(size);
    this.ids = new Int32Array(numUnits + 1).fill(-1);
    this.mask = size - 1;
    for (const [token, id] of list) {
      let node = 0;
      for (let i = 0; i < token.length; i++) node = this.grow(node, token.charCodeAt(i));
      this.ids[node] = id;
    }
    this.ids = this.ids.slice(0, this.numNodes);
  }

  /** The root. */
  get root(): number {
    return 0;
  }

  /** The node after one more code unit, or −1. */
  step(node: number, unit: number): number {
    const slot = this.slotOf(node, unit);
    return this.units[slot] === 0 ? -1 : this.targets[slot];
  }

  /** The id of the token that ends at a node, or −1. */
  idAt(node: number): number {
    return this.ids[node];
  }

  private grow(node: number, unit: number): number {
    const slot = this.slotOf(node, unit);
    if (this.units[slot] === 0) {
      this.nodes[slot] = node;
      this.units[slot] = unit + 1;
      this.targets[slot] = this.numNodes++;
    }
    return this.targets[slot];
  }

  private slotOf(node: number, unit: number): number {
    const { nodes, units, mask } = this;
    let slot = Math.imul(Math.imul(node, 0x9e3779b1) ^ unit, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & mask;
    while (units[slot] !== 0 && (nodes[slot] !== node || units[slot] !== unit + 1)) slot = (slot + 1) & mask;
    return slot;
  }
}
