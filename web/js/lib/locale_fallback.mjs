// The pack's words in the user's language, from locales/ by way of ComfyUI's /i18n.
// ComfyUI's page puts them in by itself, except that older front ends, 1.32.9 too, lose them for every
// language but English, and that no front end translates what an extension adds to a menu.

import { api, app } from "./comfy.mjs"

let words = {}

/** The registerExtension hook of this name: our nodes' names and tooltips, before they are shown. */
export async function addCustomNodeDefs(defs) {
  await fetchWords()
  for (const [id, said] of Object.entries(words.nodeDefs ?? {})) {
    if (defs[id]) translate(defs[id], said)
  }
}

/** A new node of ours: the names of its inputs and outputs. */
export function translateNode(node) {
  const said = words.nodeDefs?.[node.comfyClass]
  if (!said) return
  for (const slot of node.inputs ?? []) rename(slot, "localized_name", said.inputs?.[slot.name])
  for (const widget of node.widgets ?? []) rename(widget, "label", said.inputs?.[widget.name])
  node.outputs?.forEach((slot, index) => rename(slot, "localized_name", said.outputs?.[index]))
}

/** An entry of a menu in the user's language, or as it is. */
export function say(entry) {
  return words.contextMenu?.[entry] ?? entry
}

async function fetchWords() {
  const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en"
  if (language === "en") return
  const reply = await api.fetchApi("/i18n")
  const { nodeDefs, contextMenu } = (reply.ok && (await reply.json())[language]) || {}
  words = { nodeDefs: ours(nodeDefs), contextMenu }
}

/** Other packs' nodes stand in the same reply. */
function ours(nodeDefs = {}) {
  return Object.fromEntries(Object.entries(nodeDefs).filter(([id]) => id.startsWith("OneReward")))
}

function translate(def, said) {
  def.display_name = said.display_name
  def.description = said.description
  for (const inputs of [def.input?.required, def.input?.optional]) {
    for (const [name, spec] of Object.entries(inputs ?? {})) {
      if (spec[1]) spec[1].tooltip = said.inputs?.[name]?.tooltip ?? spec[1].tooltip
    }
  }
  def.output_tooltips = def.output_tooltips?.map((text, i) => said.outputs?.[i]?.tooltip ?? text)
}

function rename(thing, property, said) {
  if (said) thing[property] = said.name
}
