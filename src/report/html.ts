// HTML as tagged templates: every value put in is escaped, save what is itself Markup.

/** Text that is HTML already. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toString(): string {
    return this.text;
  }
}

type Value = Markup | string | number | undefined | null | false | readonly Value[];

/** `` html`<p>${userText}</p>` ``: strings and numbers are escaped, lists joined, undefined, null and false left out. */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Markup {
  return new Markup(parts.reduce((joined, part, i) => joined + toHtml(values[i - 1]) + part));
}

export const join = (items: readonly Markup[]): Markup => new Markup(items.map(({ text }) => text).join(""));

function toHtml(value: Value): string {
  if (value === undefined || value === null || value === false) return "";
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return (value as readonly Value[]).map(toHtml).join("");
  return escapeHtml(String(value));
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** For element content and quoted attributes. Control characters, which HTML forbids, become the replacement character. */
export const escapeHtml = (text: string): string => visibleText(text).replace(/[&<>"']/g, (character) => entities[character]);

/** Control and direction-changing characters become U+FFFD, newlines and tabs stay; lone surrogates too, which UTF-8 cannot hold. */
export const visibleText = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  text.replace(/\p{Surrogate}/gu, "\ufffd").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

/** JSON inside `<script type="application/json">`: no `<` can end the element early. */
export const jsonScript = (id: string, value: unknown): Markup =>
  html`<script type="application/json" id="${id}">${new Markup(JSON.stringify(value).replaceAll("<", "\\u003c"))}</script>`;
