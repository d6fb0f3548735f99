// The part of Python's pickle format that checkpoints need, read as data. Nothing is imported or called: a global is a pair of names, and
// applying one to arguments is left to a function that knows a short list of them and refuses all others.
// Source: CPython's pickletools (opcodes of protocols 2 to 5).
import { FormatError } from "../base/errors.ts";

/** A Python object. Lists are arrays, dictionaries Maps, integers beyond 2^53 bigints. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | PickleTuple
  | Map<PickleValue, PickleValue>
  | PickleGlobal
  | PickleObject;

export class PickleTuple {
  readonly items: readonly PickleValue[];
  constructor(items: readonly PickleValue[]) {
    this.items = items;
  }
}

/** A name, not what it names. */
export class PickleGlobal {
  readonly module: string;
  readonly name: string;
  constructor(module: string, name: string) {
    this.module = module;
    this.name = name;
  }
}

/** What a `reduce` or `persistent` function made; opaque here. */
export interface PickleObject {
  readonly kind: string;
}

export interface PickleHandlers {
  /** Whether a name may stand in the file at all. */
  allows(global: PickleGlobal): boolean;
  /** The object that a known callable makes of arguments. @throws FormatError. */
  reduce(global: PickleGlobal, args: readonly PickleValue[]): PickleValue;
  /** The object behind a persistent id. @throws FormatError. */
  persistent(id: PickleValue): PickleValue;
  /** Applies a state to an object, mostly to be ignored. @throws FormatError. */
  build(object: PickleValue, state: PickleValue): void;
}

const mark = Symbol("mark");
type Slot = PickleValue | typeof mark;

/** @param label names the file in errors. @throws FormatError for unknown opcodes, refused globals and anything malformed. */
export function readPickle(bytes: Uint8Array, handlers: PickleHandlers, label: string): PickleValue {
  return new Unpickler(bytes, handlers, label).run();
}

class Unpickler {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly handlers: PickleHandlers;
  private readonly label: string;
  private at = 0;
  private readonly stack: Slot[] = [];
  private readonly memo = new Map<number, PickleValue>();

  constructor(bytes: Uint8Array, handlers: PickleHandlers, label: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.handlers = handlers;
    this.label = label;
  }

  run(): PickleValue {
    for (;;) {
      const opcode = this.u8();
      if (opcode === 0x2e) return this.pop(); // STOP
      this.step(opcode);
    }
  }

  private step(opcode: number): void {
    const { stack } = this;
    switch (String.fromCharCode(opcode)) {
      case "\x80": {
        const protocol = this.u8();
        if (protocol < 2 || protocol > 5) throw this.error("pickle protocol 2 to 5", String(protocol));
        break;
      }
      case "\x95": // FRAME
        this.take(8);
        break;
      case "N":
        stack.push(null);
        break;
      case "\x88":
        stack.push(true);
        break;
      case "\x89":
        stack.push(false);
        break;
      case "J":
        stack.push(this.view.getInt32(this.take(4), true));
        break;
      case "K":
        stack.push(this.u8());
        break;
      case "M":
        stack.push(this.view.getUint16(this.take(2), true));
        break;
      case "\x8a":
        stack.push(this.integer(this.u8()));
        break;
      case "\x8b":
        stack.push(this.integer(this.u32()));
        break;
      case "G":
        stack.push(this.view.getFloat64(this.take(8)));
        break;
      case "X":
        stack.push(this.text(this.u32()));
        break;
      case "\x8c":
        stack.push(this.text(this.u8()));
        break;
      case "\x8d":
        stack.push(this.text(this.u64()));
        break;
      case "U":
        stack.push(this.text(this.u8()));
        break;
      case "T":
        stack.push(this.text(this.u32()));
        break;
      case "C":
        stack.push(this.raw(this.u8()));
        break;
      case "B":
        stack.push(this.raw(this.u32()));
        break;
      case "\x8e":
        stack.push(this.raw(this.u64()));
        break;
      case "]":
        stack.push([]);
        break;
      case "}":
        stack.push(new Map());
        break;
      case ")":
        stack.push(new PickleTuple([]));
        break;
      case "(":
        stack.push(mark);
        break;
      case "t":
        stack.push(new PickleTuple(this.toMark()));
        break;
      case "\x85":
      case "\x86":
      case "\x87":
        stack.push(new PickleTuple(this.popMany(opcode - 0x84)));
        break;
      case "l":
        stack.push(this.toMark());
        break;
      case "d":
        stack.push(this.pairs(new Map(), this.toMark()));
        break;
      case "a": {
        const item = this.pop();
        this.list().push(item);
        break;
      }
      case "e": {
        const items = this.toMark();
        const list = this.list();
        for (const item of items) list.push(item);
        break;
      }
      case "s": {
        const pair = this.popMany(2);
        this.pairs(this.dictionary(), pair);
        break;
      }
      case "u": {
        const items = this.toMark();
        this.pairs(this.dictionary(), items);
        break;
      }
      case "0":
        if (stack.pop() === undefined) throw this.error("a value on the stack", "none");
        break;
      case "1":
        this.toMark();
        break;
      case "2":
        stack.push(this.top());
        break;
      case "q":
        this.memo.set(this.u8(), this.top());
        break;
      case "r":
        this.memo.set(this.u32(), this.top());
        break;
      case "\x94":
        this.memo.set(this.memo.size, this.top());
        break;
      case "h":
        stack.push(this.remembered(this.u8()));
        break;
      case "j":
        stack.push(this.remembered(this.u32()));
        break;
      case "c":
        stack.push(this.global(this.line(), this.line()));
        break;
      case "\x93": {
        const [module, name] = this.popMany(2);
        if (typeof module !== "string" || typeof name !== "string") throw this.error("the names of a global", "something else");
        stack.push(this.global(module, name));
        break;
      }
      case "R":
      case "\x81": {
        const [callable, args] = this.popMany(2);
        if (!(callable instanceof PickleGlobal) || !(args instanceof PickleTuple))
          throw this.error("a global and its arguments", "something else");
        stack.push(this.handlers.reduce(callable, args.items));
        break;
      }
      case "Q":
        stack.push(this.handlers.persistent(this.pop()));
        break;
      case "b": {
        const state = this.pop();
        this.handlers.build(this.top(), state);
        break;
      }
      default:
        throw this.error("a pickle opcode that checkpoints use", `0x${opcode.toString(16).padStart(2, "0")}`);
    }
  }

  private global(module: string, name: string): PickleGlobal {
    const global = new PickleGlobal(module, name);
    if (!this.handlers.allows(global)) {
      throw new FormatError(`${this.label}: expected tensors and plain values, got a reference to ${`${module}.${name}`.slice(0, 200)}`, {
        hint: "The file asks for code. Save a state_dict of tensors alone, best as safetensors.",
      });
    }
    return global;
  }

  private pairs(target: Map<PickleValue, PickleValue>, items: readonly PickleValue[]): Map<PickleValue, PickleValue> {
    if (items.length % 2 !== 0) throw this.error("pairs of keys and values", `${items.length} items`);
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
    return target;
  }

  private top(): PickleValue {
    const value = this.stack.at(-1);
    if (value === undefined || value === mark) throw this.error("a value on the stack", "none");
    return value;
  }

  private pop(): PickleValue {
    const value = this.top();
    this.stack.pop();
    return value;
  }

  private popMany(count: number): PickleValue[] {
    const values: PickleValue[] = [];
    for (let i = 0; i < count; i++) values.unshift(this.pop());
    return values;
  }

  private toMark(): PickleValue[] {
    const at = this.stack.lastIndexOf(mark);
    if (at < 0) throw this.error("a mark on the stack", "none");
    const values = this.stack.splice(at + 1) as PickleValue[];
    this.stack.pop();
    return values;
  }

  private list(): PickleValue[] {
    const value = this.top();
    if (!Array.isArray(value)) throw this.error("a list", "something else");
    return value;
  }

  private dictionary(): Map<PickleValue, PickleValue> {
    const value = this.top();
    if (!(value instanceof Map)) throw this.error("a dictionary", "something else");
    return value;
  }

  private remembered(index: number): PickleValue {
    const value = this.memo.get(index);
    if (value === undefined) throw this.error(`something remembered as ${index}`, "nothing");
    return value;
  }

  /** Two's complement, little endian. */
  private integer(length: number): number | bigint {
    if (length > 1024) throw this.error("integers of at most 1024 bytes", String(length));
    const at = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[at + i]);
    if (length > 0 && this.bytes[at + length - 1] & 0x80) value -= 1n << BigInt(8 * length);
    return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0) throw this.error("the end of a line", "the end of the file");
    return this.text(end - this.at + 1).slice(0, -1);
  }

  private text(length: number): string {
    const at = this.take(length);
    return decoder.decode(this.bytes.subarray(at, at + length));
  }

  private raw(length: number): Uint8Array {
    const at = this.take(length);
    return this.bytes.slice(at, at + length);
  }

  private u8(): number {
    return this.bytes[this.take(1)];
  }

  private u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  private u64(): number {
    return Number(this.view.getBigUint64(this.take(8), true));
  }

  private take(length: number): number {
    if (length > this.bytes.length - this.at) throw this.error(`${length} more bytes`, "the end of the pickle");
    const at = this.at;
    this.at += length;
    return at;
  }

  private error(expected: string, got: string): FormatError {
    return new FormatError(`${this.label}: expected ${expected}, got ${got} before byte ${this.at} of the pickle`, {
      hint: "The file is damaged or holds more than tensors; save a state_dict, best as safetensors.",
    });
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
