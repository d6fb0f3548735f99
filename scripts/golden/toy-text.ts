// Cases of rl/environments that are tables or card games: every transition is compared, and walks through them.
import { defaultsOf } from "../../src/base/schema.ts";
import type { JsonRecord } from "../../src/engine/events.ts";
import type { Environment } from "../../src/rl/control/environment.ts";
import { Blackjack } from "../../src/rl/control/environments/blackjack.ts";
import { CliffWalking } from "../../src/rl/control/environments/cliff-walking.ts";
import { FrozenLake } from "../../src/rl/control/environments/frozen-lake.ts";
import { decodeTaxi, Taxi, taxiMap, taxiPlaces } from "../../src/rl/control/environments/taxi.ts";
import { sampleIndex, type TabularEnvironment, type TransitionTable } from "../../src/rl/control/environments/transition-table.ts";
import { environmentInfo } from "../../src/rl/control/registry.ts";
import type { Comparison } from "./compare.ts";
import { asIntegers, asList, asNumber, asNumbers, asObject, asObjects, asTexts, type Fields, shorten } from "./fields.ts";
import type { GoldenCase } from "./kind.ts";

type Case = Omit<GoldenCase, "kind">;

/** Gymnasium's names of options in camel case. */
export function optionsOf(value: unknown, place: string): Fields {
  const entries = Object.entries(asObject(value ?? {}, place));
  return Object.fromEntries(entries.map(([key, item]) => [key.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), item]));
}

/** Actions that the library refuses are refused here; we are stricter where it lets some pass. */
export function checkInvalid(environment: Environment, value: unknown, comparison: Comparison): void {
  environment.reset({ seed: 0 });
  for (const [i, item] of asObjects(value, "invalidActions").entries()) {
    if (item.error === null) continue;
    let isRefused = false;
    try {
      environment.step(item.action as number);
    } catch {
      isRefused = true;
    }
    comparison.exact(`invalidActions[${i}] refused`, isRefused, true);
  }
}

function* invalidCase(environment: Environment, content: Fields): Generator<Case> {
  if (content.invalidActions !== undefined)
    yield { name: "invalidActions", run: (comparison) => checkInvalid(environment, content.invalidActions, comparison) };
}

const limitOf = (id: string): unknown => defaultsOf(environmentInfo(id).schema).maxEpisodeSteps;

/** @param states which rows of the table are stored; default: all. */
function compareTable(own: TransitionTable, stored: unknown, comparison: Comparison, states?: readonly number[]): void {
  const rows = asList(stored, "transitions");
  comparison.exact("transitions.length", states?.length ?? own.length, rows.length);
  for (const [i, row] of rows.entries()) {
    const state = states?.[i] ?? i;
    const actions = asList(row, `transitions[${i}]`);
    comparison.exact(`transitions[${i}].length`, own[state]?.length, actions.length);
    for (const [action, item] of actions.entries()) {
      const place = `transitions[${i}][${action}]`;
      const outcomes = own[state]?.[action] ?? [];
      const { data } = asNumbers(item, place);
      const flat = outcomes.flatMap(({ probability, nextState, reward, terminated }) => [
        probability,
        nextState,
        reward,
        Number(terminated),
      ]);
      comparison.numbers(place, flat, data, { absolute: 1e-12 });
    }
  }
}

/** Puts a tabular environment into a state. */
function startAt(environment: TabularEnvironment, state: number): void {
  environment.reset({ seed: 0 });
  environment.restoreState({ ...environment.saveState(), state } as JsonRecord);
}

function compareWalk(environment: TabularEnvironment, from: number, walk: Fields, comparison: Comparison): void {
  startAt(environment, from);
  const [states, rewards, terminated] = ["states", "rewards", "terminated"].map((name) => asNumbers(walk[name], name).data);
  for (const [i, action] of asIntegers(walk.actions, "actions").entries()) {
    const result = environment.step(action);
    comparison.exact(`states[${i}]`, result.observation, states[i]);
    comparison.numbers(`rewards[${i}]`, [result.reward], [rewards[i]], { absolute: 1e-12 });
    comparison.exact(`terminated[${i}]`, Number(result.terminated), terminated[i]);
  }
}

export function* frozenLakeCases(content: Fields): Generator<Case> {
  yield {
    name: "registration",
    run: (comparison) => {
      comparison.exact("actionsMeaning", [...FrozenLake.actionNames], content.actionsMeaning);
      for (const [id, steps] of Object.entries(asObject(content.maxEpisodeSteps, "maxEpisodeSteps")))
        comparison.exact(`maxEpisodeSteps.${id}`, limitOf(id), steps);
    },
  };
  for (const [i, item] of asObjects(content.maps, "maps").entries())
    yield {
      name: shorten(`map ${i} ${JSON.stringify({ isSlippery: item.isSlippery, ...asObject(item.options, "options") })}`),
      run: (comparison) => {
        const map = [...asTexts(item.map, "map")];
        const lake = new FrozenLake({ map, isSlippery: item.isSlippery === true, ...optionsOf(item.options, "options") });
        comparison.exact("states", lake.observationSpace.n, item.states);
        comparison.exact("actions", lake.actionSpace.n, item.actions);
        comparison.numbers("start", lake.startProbabilities, asNumbers(item.start, "start"), { absolute: 1e-12 });
        compareTable(lake.transitions, item.transitions, comparison);
      },
    };
  for (const [i, sample] of asObjects(content.categoricalSample ?? [], "categoricalSample").entries())
    yield {
      name: `categoricalSample ${i}`,
      run: (comparison) => {
        const index = sampleIndex(asNumbers(sample.probabilities, "probabilities").data, asNumber(sample.uniform, "uniform"));
        comparison.exact("index", index, sample.index);
      },
    };
  yield* invalidCase(new FrozenLake(), content);
}

export function* cliffWalkingCases(content: Fields): Generator<Case> {
  yield {
    name: "actionsMeaning",
    run: (comparison) => comparison.exact("actionsMeaning", [...CliffWalking.actionNames], content.actionsMeaning),
  };
  for (const [i, table] of asObjects(content.tables, "tables").entries()) {
    const environment = new CliffWalking({ isSlippery: table.isSlippery === true });
    const start = asNumber(table.start, "start");
    yield {
      name: `table ${i} ${JSON.stringify({ isSlippery: table.isSlippery })}`,
      run: (comparison) => {
        comparison.exact("start", environment.reset({ seed: 0 }), start);
        compareTable(environment.transitions, table.transitions, comparison);
      },
    };
    for (const [j, walk] of asObjects(table.walks ?? [], "walks").entries())
      yield { name: `table ${i} walk ${j}`, run: (comparison) => compareWalk(environment, start, walk, comparison) };
  }
  yield* invalidCase(new CliffWalking(), content);
}

export function* taxiCases(content: Fields): Generator<Case> {
  const taxi = new Taxi({ isRainy: content.rainy === true });
  yield {
    name: "registration",
    run: (comparison) => {
      const frame = "+---------+";
      comparison.exact("map", [frame, ...taxiMap, frame], content.map);
      comparison.exact("locations", taxiPlaces, content.locations);
      for (const id of asTexts(content.environmentIds, "environmentIds"))
        comparison.exact(`${id}.maxEpisodeSteps`, limitOf(id), content.maxEpisodeSteps);
    },
  };
  yield {
    name: "tables",
    run: (comparison) => {
      const only = taxi.transitions.map((actions) => actions.map(([outcome]) => outcome));
      comparison.exact(
        "nextState",
        only.map((row) => row.map(({ nextState }) => nextState)),
        content.nextState,
      );
      comparison.exact(
        "reward",
        only.map((row) => row.map(({ reward }) => reward)),
        content.reward,
      );
      comparison.exact(
        "terminated",
        only.map((row) => row.map(({ terminated }) => Number(terminated))),
        content.terminated,
      );
    },
  };
  yield {
    name: "initialStates",
    run: (comparison) => {
      const states = asIntegers(content.initialStates, "initialStates");
      const expected = new Float64Array(taxi.startProbabilities.length);
      for (const state of states) expected[state] = 1 / states.length;
      comparison.numbers("startProbabilities", taxi.startProbabilities, expected, { absolute: 1e-12 });
    },
  };
  yield {
    name: "actionMask",
    run: (comparison) => {
      for (const [state, mask] of Object.entries(asObject(content.actionMask, "actionMask"))) {
        startAt(taxi, Number(state));
        comparison.exact(`actionMask.${state}`, taxi.actionMask(), mask);
      }
    },
  };
  yield {
    name: "decode",
    run: (comparison) => {
      for (const [state, expected] of Object.entries(asObject(content.decode, "decode"))) {
        const { row, column, passenger, destination } = decodeTaxi(Number(state));
        comparison.exact(`decode.${state}`, [row, column, passenger, destination], expected);
      }
    },
  };
  for (const [i, rain] of asObjects(content.rainyTransitions ?? [], "rainyTransitions").entries())
    yield {
      name: `rainyTransitions ${i}`,
      run: (comparison) => {
        const rainyProbability = asNumber(rain.rainyProbability, "rainyProbability");
        const { transitions } = new Taxi({ isRainy: true, rainyProbability });
        compareTable(transitions, rain.transitions, comparison, asIntegers(rain.states, "states"));
      },
    };
  for (const [i, walk] of asObjects(content.walks ?? [], "walks").entries())
    yield { name: `walk ${i}`, run: (comparison) => compareWalk(taxi, asNumber(walk.initialState, "initialState"), walk, comparison) };
  yield* invalidCase(taxi, content);
}

export function* blackjackCases(content: Fields): Generator<Case> {
  for (const [i, game] of asObjects(content.cases, "cases").entries())
    yield { name: shorten(`${i} ${JSON.stringify(game.options)}`), run: (comparison) => playBlackjack(game, comparison) };
}

function playBlackjack(game: Fields, comparison: Comparison): void {
  const cards = asIntegers(game.cards, "cards");
  let drawn = 0;
  const table = new Blackjack(optionsOf(game.options, "options"), () => cards[drawn++] ?? 0);
  const [first, ...rest] = asObjects(game.steps, "steps");
  comparison.exact("steps[0].observation", table.reset({ seed: 0 }), first?.observation);
  for (const [i, step] of rest.entries()) {
    const result = table.step(asNumber(step.action, `steps[${i + 1}].action`));
    comparison.exact(`steps[${i + 1}].observation`, result.observation, step.observation);
    comparison.numbers(`steps[${i + 1}].reward`, [result.reward], [asNumber(step.reward, "reward")], { absolute: 1e-12 });
    comparison.exact(`steps[${i + 1}].terminated`, Number(result.terminated), step.terminated);
  }
  const { dealer, player } = table.saveState();
  comparison.exact("dealer", dealer, game.dealer);
  comparison.exact("player", player, game.player);
  comparison.exact("cards drawn", drawn, cards.length);
}
