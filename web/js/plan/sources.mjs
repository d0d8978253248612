// The request for a plan, from the graph: image and mask files, canvas, backend and numbers of a task
// node, as far as they are known before it runs.

import { feeds, inputOf, runId, valueOf } from "./links.mjs"
import { viewUrl } from "../lib/server.mjs"

const TASKS = {
  OneRewardFill: "fill",
  OneRewardRemove: "remove",
  OneRewardText: "text",
  OneRewardExtend: "extend",
}
const PICTURES = ["LoadImage", "LoadImageOutput"]
const BACKENDS = [
  "OneRewardPreviewBackend",
  "OneRewardFalBackend",
  "OneRewardLocalBackend",
  "OneRewardModelBackend",
]
const NEEDED = { extend: ["num_images", "extend_to", "anchor", "overlap"] }
const MISSING = {
  image: "Connect a picture, and the plan shows here.",
  mask: "Connect a mask, and the plan shows here. To paint one, right-click the Load Image node.",
}

/**
 * The body of POST /onereward/plan for a task node: { body }. What another node makes is null in it:
 * the server has it from the last run. Where there is nothing to plan yet: { why, input }, a message
 * for the user and the input that it is about.
 */
export function planRequest(node) {
  if (!node.graph) return { why: "" } // it was taken out, and lives on in a closed tab or an undo
  const task = TASKS[node.type]
  const unwired = (task === "extend" ? ["image"] : ["image", "mask"]).find((name) => !wired(node, name))
  if (unwired) return { why: MISSING[unwired], input: unwired }
  const body = { node_id: runId(node), task, image: pictureFile(node), mask: maskFile(node) }
  for (const [name, types] of [["canvas", ["OneRewardCanvas"]], ["backend", BACKENDS]]) {
    const settings = connected(node, name, types)
    if (settings?.why) return settings
    body[name] = name === "canvas" ? (settings?.inputs ?? null) : settings
  }
  return withNumbers(body, node)
}

/** The URL of the picture of such a body; null if only the server knows it. */
export function pictureUrl(body) {
  if (!body.image) return null
  // Where the MaskEditor painted, a PNG is transparent; the picture is still there beneath.
  const options = body.image.filename.endsWith(".png") ? { channel: "rgb" } : {}
  return viewUrl(body.image, options)
}

function wired(node, name) {
  return feeds(node, inputOf(node, name)) !== null
}

function withNumbers(body, node) {
  for (const name of NEEDED[body.task] ?? ["num_images"]) {
    const value = valueOf(node, name)
    if (value === undefined) return { why: later(name), input: name }
    body[name] = value
  }
  const preset = valueOf(node, "preset")
  for (const name of ["steps", "cfg"]) {
    body[name] = preset === undefined ? null : (valueOf(node, name) ?? null)
  }
  body.preset = preset ?? "custom"
  body.acceleration = valueOf(node, "acceleration") ?? null
  return { body }
}

function later(name) {
  return `${name} comes from another node, so the plan is known only while it runs.`
}

function pictureFile(node) {
  const from = feeds(node, inputOf(node, "image"))
  return PICTURES.includes(from?.node.type) && from.slot === 0 ? fileOf(from.node) : null
}

function maskFile(node) {
  const from = feeds(node, inputOf(node, "mask"))
  if (PICTURES.includes(from?.node.type) && from.slot === 1) return channelOf(from.node, "alpha")
  if (from?.node.type !== "LoadImageMask") return null
  return channelOf(from.node, valueOf(from.node, "channel"))
}

function channelOf(node, channel) {
  const file = fileOf(node)
  return file && channel ? { ...file, channel } : null
}

/** What a loader's menu names, such as "clipspace/painted.png [input]". */
function fileOf(node) {
  const value = valueOf(node, "image")
  if (typeof value !== "string" || !value) return null
  const [, path, type = "input"] = value.match(/^(.*?)(?: ?\[(input|output|temp)\])?$/s)
  const cut = path.lastIndexOf("/")
  return { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type }
}

/** The settings node on that input: { node, inputs }; null if there is none; { why, input }. */
function connected(node, name, types) {
  const from = feeds(node, inputOf(node, name))
  if (!from) return null
  if (!types.includes(from.node?.type)) {
    return { why: `The ${name} comes through a node that only a run looks into.`, input: name }
  }
  const inputs = {}
  for (const widget of from.node.widgets ?? []) {
    inputs[widget.name] = valueOf(from.node, widget.name)
    if (inputs[widget.name] === undefined) return { why: later(widget.name), input: name }
  }
  return { node: from.node.type, inputs }
}
