// Complete pipelines, where training, reward and decoding meet.

export { tourAlignOptions } from "./align-stories.ts";
export {
  type BenchDecodeOptions,
  type BenchDecodeReport,
  type BenchRow,
  benchDecode,
} from "./bench-decode/bench-decode.ts";
export { type ControlContext, control, describeScores } from "./control.ts";
export {
  type ControlRunOptions,
  type ControlRunSettings,
  controlDefaults,
  controlRunSchema,
  savedControlSettings,
} from "./control-options.ts";
export { type EvaluateRunOptions, evaluateRun, type LocatedPolicy, locatePolicy, sourceOf } from "./control-policy.ts";
export { environmentName, openNamedEnvironments, openSingleEnvironment } from "./control-source.ts";
export { type EpisodeFrame, episodePage, type RecordedEpisode, type RecordOptions, recordEpisode } from "./control-watch.ts";
export { openDrafter, resolveDrafter } from "./drafter-source.ts";
export { changeableAlignment, type GrpoContext, grpo } from "./grpo.ts";
export { type GrpoOptions, grpoSchema, type PromptRecord, savedGrpoSettings } from "./grpo-options.ts";
export { type HeldOut, holdOut } from "./hold-out.ts";
export { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
export { tokenise } from "./prepare-data.ts";
export { type PretrainContext, pretrain } from "./pretrain.ts";
export {
  changeablePretraining,
  type PretrainOptions,
  type PretrainSettings,
  parseSavedSettings,
  pretrainSchema,
  savedSettings,
} from "./pretrain-options.ts";
export { quickstartOptions } from "./quickstart.ts";
export { type SelfDistillationOptions, type SelfDistilledText, selfDistil } from "./self-distillation.ts";
export type { SpeculationReport, TokenTreeReport } from "./speculation-report.ts";
export { Conversation, type ConversationOptions } from "./text-model/conversation.ts";
export { type ConvertOptions, convertModel } from "./text-model/convert-model.ts";
export { openDrafterSpec } from "./text-model/drafter-spec.ts";
export { type LoadedModel, type LoadModelOptions, loadModel } from "./text-model/load-model.ts";
export { measurePerplexity } from "./text-model/perplexity.ts";
export { type LoadOptions, load, TextModel, type TextOptions, type TextResult } from "./text-model/text-model.ts";
export { storiesModel, type TourContext, type TourOptions, type TourPart, tour, tourParts, tourSchema } from "./tour.ts";
export { type TrainDrafterContext, trainDrafter } from "./train-drafter.ts";
export { savedDrafterSettings, type TrainDrafterOptions, tourAccelerateOptions, trainDrafterSchema } from "./train-drafter-options.ts";
export { locateRun } from "./training-run.ts";
