;; What is done to every byte of a weight file on its way to memory, 16 bytes at a time. `node scripts/kernels.mjs` assembles it.
;; Callers keep counts inside the memory (kernels.ts has its layout); a wrong one traps.
(module
  (memory (export "memory") 14)

  ;; One float16 as float32, exact. Shifted into place its exponent is 112 too low, which a product mends for subnormal numbers as well.
  (func $half (param $bits i32) (result f32)
    (f32.reinterpret_i32
      (i32.or
        (i32.shl (i32.and (local.get $bits) (i32.const 0x8000)) (i32.const 16))
        (i32.or
          (i32.reinterpret_f32
            (f32.mul
              (f32.reinterpret_i32 (i32.shl (i32.and (local.get $bits) (i32.const 0x7fff)) (i32.const 13)))
              (f32.const 0x1p112)))
          ;; Infinity and NaN keep the largest exponent.
          (select (i32.const 0x7f800000) (i32.const 0)
            (i32.eq (i32.and (local.get $bits) (i32.const 0x7c00)) (i32.const 0x7c00)))))))

  ;; Four float16, in the low halves of 32 bits, as float32.
  (func $half4 (param $bits v128) (result v128)
    (local $magnitude v128)
    (local.set $magnitude (i32x4.shl (v128.and (local.get $bits) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff)) (i32.const 13)))
    (v128.or
      (i32x4.shl (v128.and (local.get $bits) (v128.const i32x4 0x8000 0x8000 0x8000 0x8000)) (i32.const 16))
      (v128.or
        (f32x4.mul (local.get $magnitude) (v128.const f32x4 0x1p112 0x1p112 0x1p112 0x1p112))
        (v128.and
          (i32x4.ge_u (local.get $magnitude) (v128.const i32x4 0x0f800000 0x0f800000 0x0f800000 0x0f800000))
          (v128.const i32x4 0x7f800000 0x7f800000 0x7f800000 0x7f800000)))))

  ;; $count float16 to float32; $count is a multiple of 8.
  (func (export "f16") (param $from i32) (param $to i32) (param $count i32)
    (local $end i32) (local $bits v128)
    (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 1))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (local.set $bits (v128.load (local.get $from)))
        (v128.store (local.get $to) (call $half4 (i32x4.extend_low_i16x8_u (local.get $bits))))
        (v128.store offset=16 (local.get $to) (call $half4 (i32x4.extend_high_i16x8_u (local.get $bits))))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (br $next))))

  ;; $count bfloat16 to float32, whose upper halves they are; $count is a multiple of 8.
  (func (export "bf16") (param $from i32) (param $to i32) (param $count i32)
    (local $end i32) (local $bits v128)
    (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 1))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (local.set $bits (v128.load (local.get $from)))
        (v128.store (local.get $to) (i32x4.shl (i32x4.extend_low_i16x8_u (local.get $bits)) (i32.const 16)))
        (v128.store offset=16 (local.get $to) (i32x4.shl (i32x4.extend_high_i16x8_u (local.get $bits)) (i32.const 16)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (br $next))))

  ;; Blocks of GGUF's Q8_0 (float16 scale, 32 int8) to those of MatMulNBits: −128 … 127 become 0 … 255.
  (func (export "q8_0") (param $from i32) (param $packed i32) (param $scales i32) (param $offsets i32) (param $blocks i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $from) (i32.mul (local.get $blocks) (i32.const 34))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (f32.store (local.get $scales) (call $half (i32.load16_u (local.get $from))))
        (v128.store (local.get $packed)
          (v128.xor (v128.load offset=2 (local.get $from)) (v128.const i32x4 0x80808080 0x80808080 0x80808080 0x80808080)))
        (v128.store offset=16 (local.get $packed)
          (v128.xor (v128.load offset=18 (local.get $from)) (v128.const i32x4 0x80808080 0x80808080 0x80808080 0x80808080)))
        (local.set $from (i32.add (local.get $from) (i32.const 34)))
        (local.set $packed (i32.add (local.get $packed) (i32.const 32)))
        (local.set $scales (i32.add (local.get $scales) (i32.const 4)))
        (br $next))))

  ;; 16 bytes that hold values i (low nibble) and i + 16 (high) to bytes that hold values 2i and 2i + 1.
  (func $nibbles (param $bytes v128) (result v128)
    (i8x16.narrow_i16x8_u
      (call $pairs (v128.and (local.get $bytes) (v128.const i32x4 0x0f0f0f0f 0x0f0f0f0f 0x0f0f0f0f 0x0f0f0f0f)))
      (call $pairs (i8x16.shr_u (local.get $bytes) (i32.const 4)))))

  ;; Neighbouring bytes below 16 as one byte in 16 bits.
  (func $pairs (param $bytes v128) (result v128)
    (v128.and
      (v128.or (local.get $bytes) (i16x8.shr_u (local.get $bytes) (i32.const 4)))
      (v128.const i32x4 0x00ff00ff 0x00ff00ff 0x00ff00ff 0x00ff00ff)))

  ;; Blocks of Q4_0 (float16 scale, 16 bytes of nibbles).
  (func (export "q4_0") (param $from i32) (param $packed i32) (param $scales i32) (param $offsets i32) (param $blocks i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $from) (i32.mul (local.get $blocks) (i32.const 18))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (f32.store (local.get $scales) (call $half (i32.load16_u (local.get $from))))
        (v128.store (local.get $packed) (call $nibbles (v128.load offset=2 (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 18)))
        (local.set $packed (i32.add (local.get $packed) (i32.const 16)))
        (local.set $scales (i32.add (local.get $scales) (i32.const 4)))
        (br $next))))

  ;; Blocks of Q4_1 (float16 scale and minimum, 16 bytes of nibbles). Levels 0 to 15 are centred at 8; the offset is rounded once.
  (func (export "q4_1") (param $from i32) (param $packed i32) (param $scales i32) (param $offsets i32) (param $blocks i32)
    (local $end i32) (local $scale f32)
    (local.set $end (i32.add (local.get $from) (i32.mul (local.get $blocks) (i32.const 20))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (local.set $scale (call $half (i32.load16_u (local.get $from))))
        (f32.store (local.get $scales) (local.get $scale))
        (f32.store (local.get $offsets)
          (f32.add (call $half (i32.load16_u offset=2 (local.get $from))) (f32.mul (f32.const 8) (local.get $scale))))
        (v128.store (local.get $packed) (call $nibbles (v128.load offset=4 (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 20)))
        (local.set $packed (i32.add (local.get $packed) (i32.const 16)))
        (local.set $scales (i32.add (local.get $scales) (i32.const 4)))
        (local.set $offsets (i32.add (local.get $offsets) (i32.const 4)))
        (br $next)))))
