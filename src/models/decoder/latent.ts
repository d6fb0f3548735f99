// Multi-head latent attention (DeepSeek-V2, Eqs. 9 to 19): queries, keys and values are computed from narrow compressed rows. Here they are
// expanded for every head before they are cached, so that one attention serves all models; a cache of the compressed rows is not made.
// Letters: N rows, C width, H heads, D width of a head in the cache.
import { type LinearWeight, linearLayer } from "../../nn/linear.ts";
import { broadcastTo, reshape } from "../../tensor/core.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { rmsNorm } from "../../tensor/norm.ts";
import { concat, pad, slice, split } from "../../tensor/shape.ts";
import type { DecoderConfig } from "./config.ts";
import type { LatentOptions } from "./options.ts";
import type { LatentParameters } from "./parameters.ts";

type LatentTensors = LatentParameters<Tensor, LinearWeight<Tensor>>;

/** Of the compressed rows: the published models have it, whatever their other norms do. */
const epsilon = 1e-6;

/** Joined queries, keys and values [N, 3 H·D] of rows [N, C]: in each head rotated features first, then plain ones, then zeros up to D. */
export function latentRows(config: DecoderConfig, latent: LatentTensors, input_NC: Tensor): Tensor {
  const { heads, headWidth } = config;
  const { keyValueRank, plainWidth, rotaryWidth, valueWidth } = config.latent as LatentOptions;
  const heads_NHD = (x: Tensor, width: number): Tensor => reshape(x, [-1, heads, width]);
  const widen = (x: Tensor): Tensor => pad(x, { after: headWidth - (x.shape[2] as number) });

  const { queryDown, queryNorm } = latent;
  const compressed = queryDown && queryNorm ? rmsNorm(linearLayer(input_NC, queryDown), queryNorm.scale, { epsilon }) : input_NC;
  const [queryPlain, queryTurning] = split(heads_NHD(linearLayer(compressed, latent.query), plainWidth + rotaryWidth), [
    plainWidth,
    rotaryWidth,
  ]);

  const [narrow, turning] = split(linearLayer(input_NC, latent.keyValueDown), [keyValueRank, rotaryWidth]);
  const expanded = linearLayer(rmsNorm(narrow, latent.keyValueNorm.scale, { epsilon }), latent.keyValue);
  const [keyPlain, value] = split(heads_NHD(expanded, plainWidth + valueWidth), [plainWidth, valueWidth]);
  const keyTurning = broadcastTo(reshape(turning, [-1, 1, rotaryWidth]), [turning.shape[0], heads, rotaryWidth]);

  const joined = concat([widen(concat([queryTurning, queryPlain])), widen(concat([keyTurning, keyPlain])), widen(value)], 1);
  return reshape(joined, [-1, 3 * heads * headWidth]);
}

/** Mixed values [N, H·D] without the padding of their heads. */
export function latentValues({ heads, headWidth, latent }: DecoderConfig, mixed: Tensor): Tensor {
  const { valueWidth } = latent as LatentOptions;
  return reshape(slice(reshape(mixed, [-1, heads, headWidth]), 2, 0, valueWidth), [-1, heads * valueWidth]);
}
