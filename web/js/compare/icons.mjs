// SVG icons for the buttons of the before/after view, in the colour of the text.

const SVG = "http://www.w3.org/2000/svg"
const LINES = {
  previous: ["M10 3 5 8l5 5"],
  next: ["m6 3 5 5-5 5"],
  grip: ["M6 4 2 8l4 4", "m10 4 4 4-4 4"],
  outline: ["M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2Z"],
  source: [
    "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8Z",
    "M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4Z",
  ],
  full: ["M6 2.5H2.5V6", "M10 2.5h3.5V6", "M13.5 10v3.5H10", "M2.5 10v3.5H6"],
  smaller: ["M3 8h10"],
  larger: ["M3 8h10", "M8 3v10"],
  close: ["m3.5 3.5 9 9", "m12.5 3.5-9 9"],
}

/** One drawing by its name, hidden from screen readers: the button around it has a spoken name. */
export function icon(name) {
  const named = { class: `orc-icon orc-icon-${name}`, "aria-hidden": "true" }
  const svg = shape("svg", { viewBox: "0 0 16 16", ...named })
  svg.append(...LINES[name].map((d) => shape("path", { d })))
  return svg
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}
