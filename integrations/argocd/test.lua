-- Run from anywhere: lua5.4 integrations/argocd/test.lua (Lua 5.1 and newer; Argo CD runs 5.1).
local folder = arg[0]:match("^(.*)/[^/]*$") or "."
local failed, count = 0, 0

local function check(script, name, object, want, said)
  obj = object
  local got = dofile(folder .. "/" .. script .. ".lua")
  count = count + 1
  if got.status ~= want or type(got.message) ~= "string" or (said and not got.message:find(said, 1, true)) then
    failed = failed + 1
    print(("%s, %s: %s %q, expected %s %s"):format(script, name, got.status, tostring(got.message), want, said or ""))
  end
end

local function rollout(conditions, waiting, generation)
  local list = {}
  for kind, status in pairs(conditions) do
    list[#list + 1] = {type = kind, status = status, message = "says " .. kind}
  end
  return {metadata = {generation = generation or 2},
    status = {observedGeneration = 2, conditions = list, waiting = waiting}}
end

local r = "progressiverollout"
check(r, "empty", {}, "Progressing")
check(r, "no status", {metadata = {generation = 1}}, "Progressing")
check(r, "no conditions", {metadata = {generation = 1}, status = {observedGeneration = 1}}, "Progressing")
check(r, "older generation", rollout({Ready = "True"}, nil, 3), "Progressing", "generation")
check(r, "idle", rollout({Ready = "True", Reconciling = "False", Stalled = "False"}), "Healthy", "says Ready")
check(r, "in a run", rollout({Ready = "Unknown", Reconciling = "True", Stalled = "False"}), "Progressing", "says Rec")
check(r, "rejected", rollout({Ready = "False", Reconciling = "False", Stalled = "True"}), "Degraded", "says Stalled")
for _, reason in ipairs({"Paused", "PausedBeforePercent", "Suspended", "UserPaused"}) do
  check(r, reason, rollout({Ready = "Unknown", Reconciling = "True"}, {reason = reason, message = "resume it"}),
    "Suspended", "resume it")
end
check(r, "waits for evidence", rollout({Reconciling = "True"}, {reason = "NotEnoughEvidence"}), "Progressing")
check(r, "stalled wins", rollout({Stalled = "True"}, {reason = "Suspended", message = "x"}), "Degraded")

local function deployment(mark, paused, updated, more)
  local object = {
    metadata = {generation = 4, annotations = mark and {["sluice.dev/held"] = mark} or nil},
    spec = {replicas = 3, paused = paused},
    status = {observedGeneration = 4, replicas = 3, updatedReplicas = updated, availableReplicas = 3},
  }
  for key, value in pairs(more or {}) do object.status[key] = value end
  return object
end

local d = "deployment"
check(d, "empty", {}, "Progressing")
check(d, "healthy", deployment(nil, nil, 3), "Healthy")
check(d, "plain pause", deployment(nil, true, 3), "Suspended")
check(d, "held", deployment("held", true, 0), "Progressing", "Sluice holds")
check(d, "held, native deadline passed", deployment("held", true, 0,
  {conditions = {{type = "Progressing", reason = "ProgressDeadlineExceeded"}}}), "Progressing", "Sluice holds")
check(d, "paused at rest, hold: always", deployment("held", true, 3), "Healthy")
check(d, "rejected", deployment("rejected", true, 0), "Degraded")
check(d, "paused by a person", deployment("user-paused", true, 0), "Suspended")
check(d, "rolling", deployment(nil, false, 1), "Progressing", "1 of 3")
check(d, "old pods", deployment(nil, false, 3, {replicas = 4}), "Progressing", "old pods")
check(d, "not available", deployment(nil, false, 3, {availableReplicas = 2}), "Progressing", "2 of 3")
check(d, "deadline", deployment(nil, false, 1,
  {conditions = {{type = "Progressing", reason = "ProgressDeadlineExceeded"}}}), "Degraded")
check(d, "not observed", deployment(nil, false, 3, {observedGeneration = 3}), "Progressing")

print(("%d checks, %d failed"):format(count, failed))
os.exit(failed == 0)
