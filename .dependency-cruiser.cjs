// The floors of the house: a folder of src/ imports from floors below it, and sideways only along the arrows listed here.
// Types count as well as values. Tests and src/*/testing are exempt. Run with `npm run floors`.

/** Lowest first. Folders of one floor do not know each other, save for the arrows. */
const floors = [
  ["base"],
  ["tensor"],
  ["runtime"],
  ["nn", "optim", "formats", "text", "data"],
  ["models"],
  ["engine"],
  ["train", "rl", "decode"],
  ["recipes"],
  ["serve", "report"],
  ["cli"],
];

/** Imports within one floor: from → to. */
const arrows = { data: ["text"], text: ["formats"], rl: ["decode"] };

const exempt = "(\\.test\\.ts$|/testing/)";
const folders = floors.flat();

const floorRules = floors.flatMap((floor, level) =>
  floor.map((folder) => {
    const allowed = [folder, ...floors.slice(0, level).flat(), ...(arrows[folder] ?? [])];
    const forbidden = folders.filter((other) => !allowed.includes(other));
    return {
      name: `floor-${folder}`,
      severity: "error",
      comment: `src/${folder} may import from: ${allowed.join(", ")}`,
      from: { path: `^src/${folder}/`, pathNot: exempt },
      to: { path: `^src/((${forbidden.join("|") || "nothing"})/|index\\.ts$)` },
    };
  }),
);

module.exports = {
  forbidden: [
    ...floorRules,
    {
      name: "unknown-folder",
      severity: "error",
      comment: "A new folder of src/ needs its floor in this file.",
      from: { path: "^src/[^/]+/", pathNot: `^src/(${folders.join("|")})/` },
      to: {},
    },
    {
      name: "no-circular",
      severity: "error",
      comment:
        "Two files that need each other at run time are one file, or lack a third one below them. Cycles of types alone are harmless.",
      from: { pathNot: exempt },
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "no-tests-in-sources",
      severity: "error",
      from: { path: "^src/", pathNot: exempt },
      to: { path: exempt },
    },
    {
      name: "no-undeclared-package",
      severity: "error",
      comment: "What src/ imports must be in `dependencies`; users do not get devDependencies.",
      from: { path: "^src/", pathNot: exempt },
      to: { dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown"], dependencyTypesNot: ["type-only"] },
    },
    {
      name: "not-resolvable",
      severity: "error",
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
      extensions: [".ts", ".mjs", ".js", ".json"],
    },
  },
};
