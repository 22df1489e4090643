-- Health of sluice.dev/ProgressiveRollout. Only Healthy and Degraded end a sync wave.
local function answer(status, message)
  return {status = status, message = message or ""}
end

local status = obj.status
local meta = obj.metadata or {}
if status == nil or (status.observedGeneration or 0) < (meta.generation or 0) then
  return answer("Progressing", "the controller has not seen this generation yet")
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type or ""] = condition
end
local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end
local function message(kind)
  return conditions[kind] ~= nil and conditions[kind].message or ""
end

if holds("Stalled") then
  return answer("Degraded", message("Stalled"))
end
-- These wait for a person, and for nothing else.
local person = {Paused = true, PausedBeforePercent = true, Suspended = true, UserPaused = true}
local waiting = status.waiting or {}
if person[waiting.reason or ""] then
  return answer("Suspended", waiting.message)
end
if holds("Reconciling") then
  return answer("Progressing", message("Reconciling"))
end
if holds("Ready") then
  return answer("Healthy", message("Ready"))
end
return answer("Progressing", waiting.message or "the controller has not said where it stands")
