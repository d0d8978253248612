// How far a picture is extended on each side (outpaint): numbers, limits and text. No page elements here.

export const SIDES = ["left", "top", "right", "bottom"]
export const STEP = 8
const LONGEST = 16384 // px: the most that extend_to takes for a side
const SMALLEST_CANVAS = 16
const ASPECTS = [
  [1, 1], [5, 4], [4, 3], [3, 2], [16, 10], [16, 9], [2, 1], [21, 9], [2.39, 1], [3, 1],
]
const NEAR = 0.004

/** The sides of a plan: how far the canvas reaches past the picture. */
export function sidesOf({ size, source }) {
  const [left, top, width, height] = source
  return { left, top, right: size[0] - left - width, bottom: size[1] - top - height }
}

/**
 * `start` with the named sides moved outwards by `by[side]` px, each to the next multiple of 8 and
 * never inside of the picture. `both` moves the sides across from them to the same length.
 */
export function moved(start, names, by, both) {
  const sides = { ...start }
  for (const name of names) {
    const length = Math.round((start[name] + by[name]) / STEP) * STEP
    sides[name] = Math.min(Math.max(length, 0), LONGEST)
    if (both) sides[opposite(name)] = sides[name]
  }
  return sides
}

/** The side across. */
export function opposite(name) {
  return SIDES[(SIDES.indexOf(name) + 2) % 4]
}

/** Width and height of the canvas. */
export function canvasOf(sides, [width, height]) {
  return [width + sides.left + sides.right, height + sides.top + sides.bottom]
}

/** What extend_to takes for these sides, such as "left 256, right 128". */
export function extendText(sides, picture) {
  const named = SIDES.filter((name) => sides[name]).map((name) => `${name} ${sides[name]}`)
  // extend_to takes no 0 on all sides; the picture's own size means the same.
  return named.join(", ") || picture.map((side) => Math.max(side, SMALLEST_CANVAS)).join("x")
}

/** The canvas as text: "1152x768, 3:2". */
export function canvasText(sides, picture) {
  const [width, height] = canvasOf(sides, picture)
  return `${width}x${height}, ${aspectText(width, height)}`
}

/** The sides as text: "left 192, right 192 px". */
export function sidesText(sides) {
  const named = SIDES.filter((name) => sides[name]).map((name) => `${name} ${sides[name]}`)
  return named.length ? `${named.join(", ")} px` : "nothing added"
}

/** A usual name of the aspect, or the number, such as "1.63:1". */
export function aspectText(width, height) {
  const wide = Math.max(width, height) / Math.min(width, height)
  const [long, short] = ASPECTS.find(([a, b]) => Math.abs(wide / (a / b) - 1) < NEAR) ?? [
    Number(wide.toFixed(2)), 1,
  ]
  return width >= height ? `${long}:${short}` : `${short}:${long}`
}
