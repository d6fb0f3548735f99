// A small vocabulary for pictures of an environment's state: lines, circles, polygons and texts in a box of 1 by 1, as plain JSON.
// Environments return it from `drawing()`; a page draws it without knowing the environment.

/** x to the right, y upwards, both from 0 to 1. What lies outside is cut off. */
export type Point = readonly [x: number, y: number];

/** What a shape means; the page chooses the colours, so that they fit light and dark. */
export type Tone = "ink" | "muted" | "surface" | "accent" | "good" | "bad";

export type LineShape = { readonly kind: "line"; readonly from: Point; readonly to: Point; readonly width: number; readonly tone: Tone };
export type CircleShape = { readonly kind: "circle"; readonly center: Point; readonly radius: number; readonly tone: Tone };
/** Closed and filled. */
export type PolygonShape = { readonly kind: "polygon"; readonly points: readonly Point[]; readonly tone: Tone };
/** Centred on `at`. */
export type TextShape = { readonly kind: "text"; readonly at: Point; readonly text: string; readonly size: number; readonly tone: Tone };
export type Shape = LineShape | CircleShape | PolygonShape | TextShape;

/** Later shapes cover earlier ones. */
export type Drawing = { readonly shapes: readonly Shape[] };

/** Four decimals are finer than a pixel, and a film of many frames stays small. */
const short = (value: number): number => Math.round(value * 1e4) / 1e4;
const place = ([x, y]: Point): Point => [short(x), short(y)];

/** @param width of the stroke, as a share of the box; default 0.01. Its ends are round. */
export function line(from: Point, to: Point, tone: Tone = "ink", width = 0.01): LineShape {
  return { kind: "line", from: place(from), to: place(to), width: short(width), tone };
}

/** Filled. */
export function circle(center: Point, radius: number, tone: Tone = "ink"): CircleShape {
  return { kind: "circle", center: place(center), radius: short(radius), tone };
}

export function polygon(points: readonly Point[], tone: Tone = "ink"): PolygonShape {
  return { kind: "polygon", points: points.map(place), tone };
}

/** A rectangle with its sides along the axes. */
export function rectangle([left, bottom]: Point, width: number, height: number, tone: Tone = "ink"): PolygonShape {
  const [right, top] = [left + width, bottom + height];
  return polygon(
    [
      [left, bottom],
      [right, bottom],
      [right, top],
      [left, top],
    ],
    tone,
  );
}

/** @param size height of a capital letter, as a share of the box; default 0.06. */
export function text(at: Point, content: string, tone: Tone = "ink", size = 0.06): TextShape {
  return { kind: "text", at: place(at), text: content, size: short(size), tone };
}

/** A curve as lines between neighbouring points. */
export function curve(points: readonly Point[], tone: Tone = "ink", width = 0.01): LineShape[] {
  return points.slice(1).map((to, i) => line(points[i], to, tone, width));
}
