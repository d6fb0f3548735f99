import { expect, test } from "vitest";
import { crc32c, maskedCrc32c } from "./crc32c.ts";

test("known checksums", () => {
  // RFC 3720, appendix B.4.
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i))).toBe(0x113fdb5c);
  // The usual check value of catalogues of CRCs.
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(0))).toBe(0);
});

test("the mask is a rotation by 15 bits and an offset", () => {
  const bytes = new TextEncoder().encode("123456789");
  const crc = 0xe3069283n;
  const rotated = ((crc >> 15n) | (crc << 17n)) & 0xffffffffn;
  expect(BigInt(maskedCrc32c(bytes))).toBe((rotated + 0xa282ead8n) & 0xffffffffn);
});
