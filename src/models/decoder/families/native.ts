// Configurations that no published family expresses: the decoder's own options as config.json, its own paths as key names.
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { ParameterSpec } from "../../../nn/parameter.ts";
import { flatten } from "../../../tensor/tree.ts";
import { type DecoderConfig, type DecoderOptions, decoderSchema } from "../config.ts";
import { decoderParameters } from "../parameters.ts";
import type { Family, KeyMapping } from "./family.ts";

export const native: Family = {
  modelType: "longwave-decoder",
  architecture: "LongwaveDecoder",
  read: (json: HfConfig) =>
    Object.fromEntries(
      Object.keys(decoderSchema.shape).flatMap((key) => (json[key] === undefined ? [] : [[key, json[key]]])),
    ) as unknown as DecoderOptions,
  write: (config: DecoderConfig): HfConfig => ({ architectures: ["LongwaveDecoder"], model_type: "longwave-decoder", ...config }),
  keys(config: DecoderConfig): KeyMapping[] {
    return flatten<ParameterSpec>(decoderParameters(config)).flatMap(([path, { parts }]): KeyMapping[] => {
      if (!parts) return [{ path, key: path }];
      const [owner, kind] = [path.slice(0, path.lastIndexOf(".")), path.slice(path.lastIndexOf(".") + 1)];
      return parts.map((part) => ({ path, part: part.name, key: `${owner}.${part.name}.${kind}` }));
    });
  },
};
