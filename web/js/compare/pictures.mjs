// Image loading for before/after pairs, with a cache and prefetch; a picture that is gone gives a message.

/** The message for a picture that ComfyUI has deleted, as it does with its temp folder. */
export const GONE = "The picture is no longer there. Run the node again."
const SOURCE_GONE = "The source is no longer there. Run the node again."
const OUTLINE_GONE = "The outline is no longer there. Run the node again."
// Two pictures whose shapes differ by more than this show different things.
const SAME_SHAPE = 0.02

/** The pictures of one batch; each is loaded once. */
export class Pictures {
  #loads = new Map()

  /** `before`, `after` and `outline` as images, null where there is none; `message` if one is gone. */
  async pair({ before, after, outline }, outlined) {
    const wanted = [["before", before], ["after", after], ["outline", outlined && outline]]
    const [source, result, edge] = await Promise.all(wanted.map(([side, url]) => this.#get(side, url)))
    if (!result) return { message: GONE }
    const message = before && !source ? SOURCE_GONE : outlined && outline && !edge ? OUTLINE_GONE : ""
    return { before: source, after: result, outline: edge, message }
  }

  /** A running edit's picture, beside the source if it shows the same; null if it is gone. */
  async step(before, url) {
    const [source, step] = await Promise.all([this.#get("before", before), load("step preview", url)])
    return step && { before: sameShape(source, step) ? source : null, after: step, message: "" }
  }

  /** Prefetch the pictures of a pair. */
  prefetch({ before, after }) {
    this.#get("before", before)
    this.#get("after", after)
  }

  #get(side, url) {
    if (!url) return null
    const key = `${side} ${url}` // one image element cannot be on both sides
    if (!this.#loads.has(key)) this.#loads.set(key, load(side, url))
    return this.#loads.get(key)
  }
}

/** The image behind a URL once it can be drawn, or null. */
function load(alt, url) {
  return new Promise((resolve) => {
    const image = new Image()
    image.alt = alt
    image.draggable = false
    image.decoding = "sync" // no flash of the ground when it replaces another
    image.onload = () => resolve(image)
    image.onerror = () => resolve(null)
    image.src = url
  })
}

function sameShape(one, other) {
  if (!one) return false
  const ratio = one.naturalWidth * other.naturalHeight / (one.naturalHeight * other.naturalWidth)
  return Math.abs(Math.log(ratio)) < SAME_SHAPE
}
