// A growing list of token ids without boxed numbers.
import { grow } from "./word-table.ts";

export class IdBuffer {
  data = new Int32Array(64);
  length = 0;

  push(id: number): void {
    if (this.length === this.data.length) this.data = grow(this.data, this.length * 2);
    this.data[this.length++] = id;
  }

  pushAll(ids: ArrayLike<number>, start = 0, end: number = ids.length): void {
    for (let i = start; i < end; i++) this.push(ids[i]);
  }

  /** A copy of exactly the ids. */
  toArray(): Int32Array<ArrayBuffer> {
    return this.data.slice(0, this.length);
  }
}
