// Walks the graph's links upstream: what feeds a node's input, through reroutes, subgraphs and bypassed
// nodes.

const SUBGRAPH_INPUT = -10
const MUTED = 2
const BYPASSED = 4
const DEEPEST = 64 // a loop that is being wired must not hang the page

/**
 * Where an input's value comes from: `{ node, slot }`, or `{ node, widget }` where a subgraph's own
 * widget gives it; null if nothing is connected, or only something muted.
 */
export function feeds(node, input, depth = 0) {
  const link = linkOf(node.graph, input?.link)
  if (!link || depth > DEEPEST) return null
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    return fromOutside(node.graph, link.origin_slot, depth + 1)
  }
  const from = node.graph.getNodeById(link.origin_id)
  if (!from || from.mode === MUTED) return null
  if (from.type === "Reroute") return feeds(from, from.inputs[0], depth + 1)
  if (from.mode === BYPASSED) return feeds(from, passedOn(from, link.origin_slot), depth + 1)
  return { node: from, slot: link.origin_slot }
}

/** The node's input of that name, wired or not. */
export function inputOf(node, name) {
  return node.inputs?.find((input) => input.name === name || input.widget?.name === name)
}

/**
 * The value a node's widget has when the graph runs; undefined if it is known only in the run,
 * because another node makes it.
 */
export function valueOf(node, name) {
  const own = node.widgets?.find((widget) => widget.name === name)?.value
  const from = feeds(node, inputOf(node, name))
  if (!from) return own
  if (from.widget) return valueOf(from.node, from.widget)
  return from.node.type.startsWith("Primitive") ? valueOf(from.node, "value") : undefined
}

/** The id that ComfyUI gives the node in a run, such as "7", or "3:7" inside of subgraph node 3. */
export function runId(node) {
  const hosts = []
  for (let graph = node.graph; graph; graph = hosts[0]?.graph) {
    const host = hostOf(graph)
    if (!host) break
    hosts.unshift(host)
  }
  return [...hosts, node].map((each) => each.id).join(":")
}

function linkOf(graph, id) {
  return id == null ? null : graph.getLink(id)
}

/** What the subgraph's own input of that slot is given, on the node that stands for it. */
function fromOutside(graph, slot, depth) {
  const host = hostOf(graph)
  const input = host?.inputs[slot]
  if (!input) return null
  if (input.link == null && input.widget) return { node: host, widget: input.widget.name }
  return feeds(host, input, depth)
}

/** The node that stands for a subgraph in the graph above; null for the top. */
function hostOf(graph) {
  const root = graph.rootGraph
  return root && root !== graph ? search(root, graph) : null
}

function search(graph, wanted) {
  for (const node of graph.nodes) {
    if (!node.subgraph) continue
    const host = node.subgraph === wanted ? node : search(node.subgraph, wanted)
    if (host) return host
  }
  return null
}

/** The input that a bypassed node hands on by that output: the same slot's, else one of its type. */
function passedOn(node, slot) {
  const type = node.outputs[slot]?.type
  const fits = (input) => input?.type === type
  return fits(node.inputs[slot]) ? node.inputs[slot] : node.inputs.find(fits)
}
