-- Health of apps/Deployment: Argo CD's own rules, except that a pause with Sluice's mark is not a pause.
-- Without this a held Deployment is Suspended, which never ends a sync wave.
local function answer(status, message)
  return {status = status, message = message or ""}
end

local meta = obj.metadata or {}
local spec = obj.spec or {}
local status = obj.status or {}
local mark = (meta.annotations or {})["sluice.dev/held"] or ""

if mark == "rejected" then
  return answer("Degraded", "Sluice rejected this template; the stable revision serves")
end
if mark == "user-paused" or (spec.paused == true and mark == "") then
  return answer("Suspended", "Deployment is paused")
end
if (meta.generation or 0) > (status.observedGeneration or 0) then
  return answer("Progressing", "waits until the new spec is observed")
end
for _, condition in ipairs(status.conditions or {}) do
  if mark == "" and condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded" then
    return answer("Degraded", "Deployment exceeded its progress deadline")
  end
end

-- A held template has no pods of the Deployment's own. With `admission.hold: always` the mark stands at rest too,
-- and then all pods are up to date.
local wanted = spec.replicas or 1
local updated = status.updatedReplicas or 0
local all = status.replicas or 0
local available = status.availableReplicas or 0
if updated < wanted then
  if mark ~= "" then
    return answer("Progressing", "Sluice holds the new template; see the ProgressiveRollout")
  end
  return answer("Progressing", updated .. " of " .. wanted .. " pods are up to date")
end
if all > updated then
  return answer("Progressing", (all - updated) .. " old pods are still there")
end
if available < updated then
  return answer("Progressing", available .. " of " .. updated .. " pods are available")
end
return answer("Healthy")
