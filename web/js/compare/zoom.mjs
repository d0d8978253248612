// Zoom and pan: where a picture lies in a window, and at what scale. No page elements here.

const STOPS = [0.05, 0.1, 0.167, 0.25, 0.333, 0.5, 0.667, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32]
const LARGEST = STOPS.at(-1)

/**
 * `scale` counts screen pixels for each pixel of the picture, so that 1 is exact on every screen;
 * all places are in the window's own pixels, of which one is `density` screen pixels.
 */
export class Zoom {
  fitted = true
  scale = 1
  #picture = [1, 1]
  #room = [1, 1]
  #density = 1
  #corner = [0, 0]

  /** Another picture or another window; a picture of the same size stays where it is. */
  set(picture, room, density) {
    const other = picture.some((side, axis) => side !== this.#picture[axis])
    this.#picture = picture
    this.#room = room
    this.#density = density
    if (other || this.fitted) this.fit()
    else this.#place(this.#corner)
  }

  /** The whole picture, as large as the window allows. */
  fit() {
    this.fitted = true
    this.scale = this.#fitting()
    this.#place([0, 0])
  }

  /** Zoom to `scale` while the point [x, y] of the window stays on its place of the picture. */
  to(scale, [x, y]) {
    const smallest = Math.min(this.#fitting(), 1)
    const next = Math.min(Math.max(scale, smallest), LARGEST)
    const grown = next / this.scale
    this.scale = next
    this.fitted = next === this.#fitting()
    this.#place([x - (x - this.#corner[0]) * grown, y - (y - this.#corner[1]) * grown])
  }

  /** The next larger (1) or smaller (-1) of the usual sizes. */
  step(direction, point) {
    const stops = direction > 0 ? STOPS : [...STOPS].reverse()
    const next = stops.find((stop) => direction * (stop - this.scale) > 0.001)
    this.to(next ?? this.scale, point)
  }

  pan(x, y) {
    this.#place([this.#corner[0] + x, this.#corner[1] + y])
  }

  /** True if the window does not hold the whole picture. */
  get cropped() {
    return this.#size().some((side, axis) => side > this.#room[axis] + 0.5)
  }

  get percent() {
    return Math.round(this.scale * 100)
  }

  /** The picture's place in the window: [x, y, width, height], on whole screen pixels. */
  get box() {
    const whole = (value) => Math.round(value * this.#density) / this.#density
    return [...this.#corner.map(whole), ...this.#size()]
  }

  /** The part of the window where the picture is: [x, y, width, height]. */
  get seen() {
    const [x, y, width, height] = this.box
    const [left, top] = [Math.max(x, 0), Math.max(y, 0)]
    const [right, bottom] = [Math.min(x + width, this.#room[0]), Math.min(y + height, this.#room[1])]
    return [left, top, right - left, bottom - top]
  }

  #fitting() {
    const scales = this.#picture.map((side, axis) => this.#room[axis] * this.#density / side)
    return Math.min(...scales, LARGEST)
  }

  #size() {
    return this.#picture.map((side) => side * this.scale / this.#density)
  }

  /** No gap beside a picture that is larger than the window; a smaller one is in the middle. */
  #place(corner) {
    const size = this.#size()
    this.#corner = corner.map((place, axis) => {
      const free = this.#room[axis] - size[axis]
      return free >= 0 ? free / 2 : Math.min(Math.max(place, free), 0)
    })
  }
}
