// A speculative step's token tree as SVG: every candidate with its probability, the accepted path emphasised.
import { formatNumber } from "./format.ts";
import { html, join, type Markup } from "./html.ts";
import { asFinite, asList, asText, isRecord } from "./json.ts";
import type { Artifact } from "./run-record.ts";
import { layoutTree, type Placed, type TreeNode } from "./tree-layout.ts";

interface TokenNode extends TreeNode {
  readonly text: string;
  readonly probability: number | undefined;
  readonly accepted: boolean;
}

/** More would be no picture any more. */
const maxNodes = 400;
const rowHeight = 30;
const gap = 30;
const characterWidth = 7;
const maxCharacters = 14;

export function tokenTree({ data, step }: Artifact): Markup {
  const all = asList(data.nodes).flatMap(parseNode);
  const nodes = all.slice(0, maxNodes);
  const { placed, rows } = layoutTree(nodes);
  const title = asText(data.title) ?? "One speculative step";
  if (placed.length === 0) return html`<p class="missing">${title}: the token tree (step ${step}) holds no nodes that can be drawn.</p>`;
  // A column is as wide as its longest token.
  const widths: number[] = [];
  for (const { node, depth } of placed) widths[depth] = Math.max(widths[depth] ?? 0, boxWidth(node));
  const left = widths.map((_, depth) => widths.slice(0, depth).reduce((sum, width) => sum + width + gap, 4));
  const [width, height] = [left[left.length - 1] + widths[widths.length - 1] + 4, rows * rowHeight + 6];
  const center = ({ row }: Placed<TokenNode>): number => 3 + (row + 0.5) * rowHeight;
  const edges = placed.map((item) => {
    if (item.parent === undefined) return undefined;
    const parent = placed[item.parent];
    const [x0, y0] = [left[parent.depth] + boxWidth(parent.node), center(parent)];
    const [x1, y1] = [left[item.depth], center(item)];
    const bend = (x0 + x1) / 2;
    const isAccepted = item.node.accepted && (parent.node.accepted || parent.parent === undefined);
    return html`<path class="edge${isAccepted ? " accepted" : ""}" d="M${x0} ${y0}C${bend} ${y0} ${bend} ${y1} ${x1} ${y1}"/>`;
  });
  const boxes = placed.map((item) => {
    const { node, depth, parent } = item;
    const [x, y] = [left[depth], center(item)];
    const kind = parent === undefined ? " root" : node.accepted ? " accepted" : "";
    const share = node.probability === undefined ? "" : `${formatNumber(node.probability * 100, 2)} %`;
    return html`<g class="token${kind}"><title>${node.text}${share && ` · probability ${share}`}${node.accepted ? " · accepted" : ""}</title><rect x="${x}" y="${y - 11}" width="${boxWidth(node)}" height="22" rx="4"/><text x="${x + 7}" y="${y}" dy="4">${label(node)}</text>${share && html`<text class="share" x="${x + boxWidth(node) - 7}" y="${y}" dy="3.5">${share}</text>`}</g>`;
  });
  const accepted = placed.filter(({ node, parent }) => node.accepted && parent !== undefined);
  const words = accepted.map(({ node }) => node.text).join("");
  const numDrafted = placed.filter(({ parent }) => parent !== undefined).length;
  // Drawn last, so that the accepted path lies on top.
  const ordered = [
    ...edges.filter((edge) => edge && !edge.text.includes("accepted")),
    ...edges.filter((edge) => edge?.text.includes("accepted")),
  ];
  return html`<figure class="tree"><figcaption><h4>${title}</h4><span class="unit">${numDrafted} drafted tokens, ${accepted.length} accepted; share: the drafter's probability in %</span></figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="${title}"><svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${`Token tree of ${placed.length} nodes. Accepted: ${words || "none"}`}">${join(ordered.filter((edge) => edge !== undefined))}${join(boxes)}</svg></div>
${all.length > maxNodes ? html`<p class="note">The first ${maxNodes} of ${all.length} nodes.</p>` : ""}</figure>
`;
}

function parseNode(value: unknown): TokenNode[] {
  if (!isRecord(value)) return [];
  const id = value.id;
  if (typeof id !== "number" && typeof id !== "string") return [];
  const { parent } = value;
  // The root's parent is null, -1 or itself in different tools' records.
  const hasParent = (typeof parent === "number" && parent >= 0) || (typeof parent === "string" && parent !== "");
  return [
    {
      id: String(id),
      parent: hasParent && parent !== id ? String(parent) : undefined,
      text: typeof value.text === "string" ? value.text : "?",
      // The root is there already: its probability says nothing.
      probability: hasParent ? asFinite(value.probability) : undefined,
      accepted: value.accepted === true,
    },
  ];
}

/** A token with its white space visible, cut where it is long. */
function label({ text }: TokenNode): string {
  const visible = text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·");
  const characters = [...visible];
  return characters.length > maxCharacters ? `${characters.slice(0, maxCharacters - 1).join("")}…` : visible === "" ? "∅" : visible;
}

const boxWidth = (node: TokenNode): number =>
  Math.max(2, [...label(node)].length) * characterWidth + 14 + (node.probability === undefined ? 0 : 42);
