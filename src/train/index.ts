// Learning from data.
export type { TrainableDecoder } from "./decoder-program.ts";
export { type EvaluationRunOptions, Evaluator, type EvaluatorOptions } from "./evaluator.ts";
export {
  type LanguageModelData,
  type LanguageModelHooks,
  type LanguageModelOptions,
  LanguageModelTrainer,
  languageModelSchema,
} from "./language-model.ts";
export { type MedusaCalibration, type MedusaData, MedusaTrainer, type MedusaTrainingOptions, medusaTrainingSchema } from "./medusa.ts";
