//! What an instruction makes of one lane of its two sources and its immediate.

use iced_x86::Mnemonic;

/// See the module's text.
#[derive(Clone, Copy)]
pub struct Operation {
    /// The new lane. A shift's second argument is its count.
    pub apply: fn(u128, u128, u8) -> u128,
    /// All lanes are shifted by the same count.
    pub is_shift: bool,
}

/// The operation of an instruction; none if it is not known.
pub fn operation(mnemonic: Mnemonic) -> Option<Operation> {
    let shift = shift(mnemonic).map(|apply| Operation { apply, is_shift: true });
    let plain = || logic(mnemonic).or_else(|| arithmetic(mnemonic)).or_else(|| shuffle(mnemonic));
    shift.or_else(|| plain().map(|apply| Operation { apply, is_shift: false }))
}

type Apply = fn(u128, u128, u8) -> u128;

fn logic(mnemonic: Mnemonic) -> Option<Apply> {
    use Mnemonic::*;
    Some(match mnemonic {
        Pxor | Xorps | Xorpd | Vpxor | Vxorps | Vxorpd => |a, b, _| a ^ b,
        Por | Orps | Orpd | Vpor | Vorps | Vorpd => |a, b, _| a | b,
        Pand | Andps | Andpd | Vpand | Vandps | Vandpd => |a, b, _| a & b,
        Pandn | Andnps | Andnpd | Vpandn | Vandnps | Vandnpd => |a, b, _| !a & b,
        _ => return None,
    })
}

/// Defines functions that apply a closure to each element of a lane.
macro_rules! elements {
    ($name:ident, $type:ty, $len:literal) => {
        fn $name(a: u128, b: u128, f: impl Fn($type, $type) -> $type) -> u128 {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            let mut result = [0; 16];
            let pairs = a.as_chunks::<$len>().0.iter().zip(b.as_chunks::<$len>().0);
            for (place, (a, b)) in result.as_chunks_mut::<$len>().0.iter_mut().zip(pairs) {
                *place = f(<$type>::from_le_bytes(*a), <$type>::from_le_bytes(*b)).to_le_bytes();
            }
            u128::from_le_bytes(result)
        }
    };
}

elements!(bytes, u8, 1);
elements!(words, u16, 2);
elements!(dwords, u32, 4);
elements!(qwords, u64, 8);
elements!(signed_bytes, i8, 1);
elements!(signed_words, i16, 2);
elements!(signed_dwords, i32, 4);

fn arithmetic(mnemonic: Mnemonic) -> Option<Apply> {
    use Mnemonic::*;
    Some(match mnemonic {
        Paddb | Vpaddb => |a, b, _| bytes(a, b, u8::wrapping_add),
        Paddw | Vpaddw => |a, b, _| words(a, b, u16::wrapping_add),
        Paddd | Vpaddd => |a, b, _| dwords(a, b, u32::wrapping_add),
        Paddq | Vpaddq => |a, b, _| qwords(a, b, u64::wrapping_add),
        Psubb | Vpsubb => |a, b, _| bytes(a, b, u8::wrapping_sub),
        Psubw | Vpsubw => |a, b, _| words(a, b, u16::wrapping_sub),
        Psubd | Vpsubd => |a, b, _| dwords(a, b, u32::wrapping_sub),
        Psubq | Vpsubq => |a, b, _| qwords(a, b, u64::wrapping_sub),
        Pcmpeqb | Vpcmpeqb => |a, b, _| bytes(a, b, |a, b| if a == b { !0 } else { 0 }),
        Pcmpeqw | Vpcmpeqw => |a, b, _| words(a, b, |a, b| if a == b { !0 } else { 0 }),
        Pcmpeqd | Vpcmpeqd => |a, b, _| dwords(a, b, |a, b| if a == b { !0 } else { 0 }),
        Pcmpeqq | Vpcmpeqq => |a, b, _| qwords(a, b, |a, b| if a == b { !0 } else { 0 }),
        Pcmpgtb | Vpcmpgtb => |a, b, _| signed_bytes(a, b, |a, b| if a > b { -1 } else { 0 }),
        Pcmpgtw | Vpcmpgtw => |a, b, _| signed_words(a, b, |a, b| if a > b { -1 } else { 0 }),
        Pcmpgtd | Vpcmpgtd => |a, b, _| signed_dwords(a, b, |a, b| if a > b { -1 } else { 0 }),
        Pminub | Vpminub => |a, b, _| bytes(a, b, u8::min),
        Pmaxub | Vpmaxub => |a, b, _| bytes(a, b, u8::max),
        Pmullw | Vpmullw => |a, b, _| words(a, b, u16::wrapping_mul),
        Pmulld | Vpmulld => |a, b, _| dwords(a, b, u32::wrapping_mul),
        Pmuludq | Vpmuludq => |a, b, _| {
            let low = u64::from(u32::MAX);
            qwords(a, b, |a, b| (a & low).wrapping_mul(b & low))
        },
        Pclmulqdq | Vpclmulqdq => multiply_without_carry,
        _ => return None,
    })
}

/// The product of two polynomials over GF(2); the immediate's bits 0 and 4 pick the halves.
fn multiply_without_carry(a: u128, b: u128, immediate: u8) -> u128 {
    let half = |lane: u128, high: u8| lane >> if high != 0 { 64 } else { 0 } & u128::from(u64::MAX);
    let (a, b) = (half(a, immediate & 1), half(b, immediate & 0x10));
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |product, bit| product ^ a << bit)
}

fn shift(mnemonic: Mnemonic) -> Option<Apply> {
    use Mnemonic::*;
    Some(match mnemonic {
        Psllw | Vpsllw => |a, n, _| words(a, 0, |a, _| a.checked_shl(count(n)).unwrap_or(0)),
        Pslld | Vpslld => |a, n, _| dwords(a, 0, |a, _| a.checked_shl(count(n)).unwrap_or(0)),
        Psllq | Vpsllq => |a, n, _| qwords(a, 0, |a, _| a.checked_shl(count(n)).unwrap_or(0)),
        Psrlw | Vpsrlw => |a, n, _| words(a, 0, |a, _| a.checked_shr(count(n)).unwrap_or(0)),
        Psrld | Vpsrld => |a, n, _| dwords(a, 0, |a, _| a.checked_shr(count(n)).unwrap_or(0)),
        Psrlq | Vpsrlq => |a, n, _| qwords(a, 0, |a, _| a.checked_shr(count(n)).unwrap_or(0)),
        Psraw | Vpsraw => |a, n, _| signed_words(a, 0, |a, _| a >> count(n).min(15)),
        Psrad | Vpsrad => |a, n, _| signed_dwords(a, 0, |a, _| a >> count(n).min(31)),
        Pslldq | Vpslldq => |a, n, _| a.checked_shl(count(n).saturating_mul(8)).unwrap_or(0),
        Psrldq | Vpsrldq => |a, n, _| a.checked_shr(count(n).saturating_mul(8)).unwrap_or(0),
        _ => return None,
    })
}

fn count(n: u128) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn shuffle(mnemonic: Mnemonic) -> Option<Apply> {
    use Mnemonic::*;
    Some(match mnemonic {
        Pshufb | Vpshufb => pshufb,
        Pshufd | Vpshufd => |_, b, order| pick_dwords([b, b], order),
        Shufps | Vshufps => |a, b, order| pick_dwords([a, b], order),
        Pshuflw | Vpshuflw => |_, b, order| shuffle_words(b, order, 0),
        Pshufhw | Vpshufhw => |_, b, order| shuffle_words(b, order, 4),
        Palignr | Vpalignr => palignr,
        Punpcklbw | Vpunpcklbw => |a, b, _| interleave::<1>(a, b, 0),
        Punpcklwd | Vpunpcklwd => |a, b, _| interleave::<2>(a, b, 0),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => |a, b, _| interleave::<4>(a, b, 0),
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => |a, b, _| interleave::<8>(a, b, 0),
        Punpckhbw | Vpunpckhbw => |a, b, _| interleave::<1>(a, b, 8),
        Punpckhwd | Vpunpckhwd => |a, b, _| interleave::<2>(a, b, 8),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => |a, b, _| interleave::<4>(a, b, 8),
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => |a, b, _| interleave::<8>(a, b, 8),
        Movhlps | Vmovhlps => |a, b, _| a >> 64 << 64 | b >> 64,
        Movlhps | Vmovlhps => |a, b, _| a & u128::from(u64::MAX) | b << 64,
        Pblendw | Vpblendw => pblendw,
        _ => return None,
    })
}

/// Each byte of the control picks one byte, or zero if its top bit is set.
fn pshufb(a: u128, control: u128, _: u8) -> u128 {
    let from = a.to_le_bytes();
    let pick = |index: u8| if index & 0x80 != 0 { 0 } else { from[usize::from(index & 15)] };
    u128::from_le_bytes(control.to_le_bytes().map(pick))
}

/// Two dwords of the first and two of the second source, by pairs of bits.
fn pick_dwords([low, high]: [u128; 2], order: u8) -> u128 {
    let pick = |lane: u128, index: u32| {
        let from = u32::from(order >> (2 * index) & 3);
        (lane >> (32 * from) & u128::from(u32::MAX)) << (32 * index)
    };
    pick(low, 0) | pick(low, 1) | pick(high, 2) | pick(high, 3)
}

/// Four words from the one that is number `first` on, in the order of the immediate.
fn shuffle_words(lane: u128, order: u8, first: u32) -> u128 {
    let base = 16 * first;
    let kept = lane & !(u128::from(u64::MAX) << base);
    let pick = |index: u32| {
        let from = base + 16 * u32::from(order >> (2 * index) & 3);
        (lane >> from & u128::from(u16::MAX)) << (base + 16 * index)
    };
    (0..4).fold(kept, |value, index| value | pick(index))
}

/// The two sources side by side, shifted right by bytes.
fn palignr(a: u128, b: u128, by: u8) -> u128 {
    let bits = 8 * u32::from(by);
    let low = b.checked_shr(bits).unwrap_or(0);
    match bits {
        0 => b,
        1..128 => low | a << (128 - bits),
        _ => a.checked_shr(bits - 128).unwrap_or(0),
    }
}

/// Elements of `N` bytes, taken in turn from both sources, from byte `first` on.
fn interleave<const N: usize>(a: u128, b: u128, first: usize) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let mut result = [0; 16];
    for (index, place) in result.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        let from = if index % 2 == 0 { &a } else { &b };
        let start = first + index / 2 * N;
        place.copy_from_slice(&from[start..start + N]);
    }
    u128::from_le_bytes(result)
}

/// Words of the second source where the immediate has ones.
fn pblendw(a: u128, b: u128, choice: u8) -> u128 {
    let mask = (0..8).filter(|word| choice >> word & 1 != 0);
    let mask = mask.fold(0, |mask, word: u32| mask | u128::from(u16::MAX) << (16 * word));
    a & !mask | b & mask
}
