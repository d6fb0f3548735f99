// Linear regression: a model is a function, a loss is a function, gradients are more of the same graph, and training is a loop of
// compiled programs over memory that is yours.
import { pathToFileURL } from "node:url";
import { createOptimizer } from "longwave/optim";
import { allocate, allocateFlat, bufferFrom, compile, openBackend, Random, spec } from "longwave/runtime";
import { gradients, linear, mean, square, sub } from "longwave/tensor";

export function main({ samples = 256, steps = 300, print = console.log } = {}) {
  // Data: y = 2 x₀ − 3 x₁ + 1, with a little noise.
  const random = new Random(0);
  const x = allocate("f32", [samples, 2]);
  for (let i = 0; i < x.data.length; i++) x.data[i] = random.normal();
  const noisy = Array.from({ length: samples }, (_, i) => 2 * x.data[2 * i] - 3 * x.data[2 * i + 1] + 1 + 0.01 * random.normal());
  const y = bufferFrom("f32", [samples, 1], noisy);

  // A model is described by the shapes of its parameters. They and their gradients are one flat buffer each, in a tree of views.
  const shapes = { weight: spec("f32", [1, 2]), bias: spec("f32", [1]) };
  const parameters = allocateFlat(shapes);
  const slopes = allocateFlat(shapes);
  const loss = allocate("f32", []);

  // The function is traced once, over tensors without values, and compiled.
  using backend = openBackend().backend;
  using program = compile(
    backend,
    ({ model, x, y }) => {
      const loss = mean(square(sub(linear(x, model.weight, model.bias), y)));
      return { loss, gradients: gradients(loss, model) };
    },
    { model: shapes, x: spec("f32", [samples, 2]), y: spec("f32", [samples, 1]) },
  );

  // Binding says which memory the program reads and writes. The optimiser changes the same parameters in place.
  const step = program.bind({ model: parameters.tree, x, y }, { loss, gradients: slopes.tree });
  using optimizer = createOptimizer(backend, { kind: "adam", learningRate: 0.05 }, parameters, slopes);
  for (let i = 0; i < steps; i++) {
    step.run();
    optimizer.step();
    if (i % Math.ceil(steps / 6) === 0) print(`step ${i}: loss ${loss.data[0].toFixed(4)}`);
  }
  const weight = Array.from(parameters.tree.weight.data, Number);
  const bias = Number(parameters.tree.bias.data[0]);
  print(`y ≈ ${weight[0].toFixed(3)} x₀ + ${weight[1].toFixed(3)} x₁ + ${bias.toFixed(3)}`);
  return { weight, bias, loss: loss.data[0] };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) main();
