// Text for tests that train: common words in random order, paragraphs of forty.
const words =
  "the a of in to and king queen sea ship wind night day light dark stone river tree bird song fire water earth sky star moon sun old new great small long short good bad man woman child house door road hill".split(
    " ",
  );

/** The same for the same arguments. */
export function randomText(paragraphs: number, seed = 1): string {
  let state = seed;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const word = (): string => words[Math.floor(next() * next() * words.length)];
  const paragraph = (): string => `${Array.from({ length: 40 }, word).join(" ")}.\n\n`;
  return Array.from({ length: paragraphs }, paragraph).join("");
}
