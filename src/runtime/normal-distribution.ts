// The standard normal distribution function and its inverse, in double precision.
// Inverse: Wichura 1988, algorithm AS 241 (PPND16, relative error about 1e-16); the coefficients are the published
// ones rounded to doubles. Forward: Taylor series near the centre (Marsaglia 2004), Laplace's continued fraction in the tails.

const coefficientsA = [
  3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946, 45921.95393154987, 67265.7709270087, 33430.57558358813,
  2509.0809287301227,
];
const coefficientsB = [
  1, 42.31333070160091, 687.1870074920579, 5394.196021424751, 21213.794301586597, 39307.89580009271, 28729.085735721943, 5226.495278852854,
];
const coefficientsC = [
  1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045, 1.2704582524523684, 0.2417807251774506,
  0.022723844989269184, 0.0007745450142783414,
];
const coefficientsD = [
  1, 2.053191626637759, 1.6763848301838038, 0.6897673349851, 0.14810397642748008, 0.015198666563616457, 0.0005475938084995345,
  1.0507500716444169e-9,
];
const coefficientsE = [
  6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487, 0.026532189526576124, 0.0012426609473880784,
  0.000027115555687434876, 2.0103343992922881e-7,
];
const coefficientsF = [
  1, 0.599832206555888, 0.1369298809227358, 0.014875361290850615, 0.0007868691311456133, 0.000018463183175100548, 1.421511758316446e-7,
  2.0442631033899397e-15,
];

function ratio(numerator: readonly number[], denominator: readonly number[], x: number): number {
  let top = numerator[7];
  let bottom = denominator[7];
  for (let i = 6; i >= 0; i--) {
    top = top * x + numerator[i];
    bottom = bottom * x + denominator[i];
  }
  return top / bottom;
}

/** The z with P(Z <= z) = probability. -Infinity at 0, Infinity at 1, NaN outside [0, 1]. */
export function normalQuantile(probability: number): number {
  const centred = probability - 0.5;
  if (Math.abs(centred) <= 0.425) return centred * ratio(coefficientsA, coefficientsB, 0.180625 - centred * centred);
  const tail = centred < 0 ? probability : 1 - probability;
  if (tail <= 0) return tail === 0 ? Math.sign(centred) * Number.POSITIVE_INFINITY : Number.NaN;
  const depth = Math.sqrt(-Math.log(tail));
  const z = depth <= 5 ? ratio(coefficientsC, coefficientsD, depth - 1.6) : ratio(coefficientsE, coefficientsF, depth - 5);
  return centred < 0 ? -z : z;
}

/** P(Z <= z) for a standard normal Z; small probabilities keep their relative precision. */
export function normalDistribution(z: number): number {
  if (Number.isNaN(z)) return Number.NaN;
  const x = Math.abs(z);
  const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
  if (x < 4) {
    // P(Z <= x) = 1/2 + density(x) * (x + x^3/3 + x^5/(3*5) + ...)
    let term = x;
    let sum = x;
    for (let n = 3; term > sum * 1e-17; n += 2) {
      term *= (x * x) / n;
      sum += term;
    }
    if (z >= 0) return 0.5 + density * sum;
    if (x < 1) return 0.5 - density * sum;
  }
  // P(Z > x) = density(x) / (x + 1/(x + 2/(x + 3/(x + ...)))); more terms are needed nearer to the centre.
  let fraction = x;
  for (let n = x < 4 ? 400 : 100; n >= 1; n--) fraction = x + n / fraction;
  const upper = density / fraction;
  return z > 0 ? 1 - upper : upper;
}
