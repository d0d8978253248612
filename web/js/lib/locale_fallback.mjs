// Localization (i18n): the pack's translations from locales/, as ComfyUI serves them at /i18n.
// ComfyUI's page applies them by itself, with two exceptions: older front ends, 1.32.9 too, lose them
// for every language but English, and no front end translates what an extension adds to a menu.

import { api, app } from "./comfy.mjs"

let translations = {}

/** The registerExtension hook of this name: our nodes' names and tooltips, before they are shown. */
export async function addCustomNodeDefs(defs) {
  await fetchTranslations()
  for (const [id, translated] of Object.entries(translations.nodeDefs ?? {})) {
    if (defs[id]) translate(defs[id], translated)
  }
}

/** A new node of ours: the names of its inputs and outputs. */
export function translateNode(node) {
  const translated = translations.nodeDefs?.[node.comfyClass]
  if (!translated) return
  for (const slot of node.inputs ?? []) rename(slot, "localized_name", translated.inputs?.[slot.name])
  for (const widget of node.widgets ?? []) rename(widget, "label", translated.inputs?.[widget.name])
  node.outputs?.forEach((slot, index) => rename(slot, "localized_name", translated.outputs?.[index]))
}

/** A menu entry in the user's language; unchanged where there is no translation. */
export function translateEntry(entry) {
  return translations.contextMenu?.[entry] ?? entry
}

async function fetchTranslations() {
  const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en"
  if (language === "en") return
  const reply = await api.fetchApi("/i18n")
  const { nodeDefs, contextMenu } = (reply.ok && (await reply.json())[language]) || {}
  translations = { nodeDefs: ours(nodeDefs), contextMenu }
}

/** Other packs' nodes stand in the same reply. */
function ours(nodeDefs = {}) {
  return Object.fromEntries(Object.entries(nodeDefs).filter(([id]) => id.startsWith("OneReward")))
}

function translate(def, translated) {
  def.display_name = translated.display_name
  def.description = translated.description
  for (const inputs of [def.input?.required, def.input?.optional]) {
    for (const [name, spec] of Object.entries(inputs ?? {})) {
      if (spec[1]) spec[1].tooltip = translated.inputs?.[name]?.tooltip ?? spec[1].tooltip
    }
  }
  def.output_tooltips = def.output_tooltips?.map((text, i) => translated.outputs?.[i]?.tooltip ?? text)
}

function rename(target, property, translated) {
  if (translated) target[property] = translated.name
}
