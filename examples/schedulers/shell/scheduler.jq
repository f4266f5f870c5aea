# What scheduler.sh decides with: pure functions of [what stands in the store, what is remembered, who is healthy]. Raises
# for what can't be read, and then nothing is done.

# By name, without those that can't be names: they might say something to a shell.
def named(prefix): with_entries(select(.key | startswith(prefix)) | .key |= ltrimstr(prefix)
  | select(.key | test("\\A[A-Za-z0-9._-]+\\z")) | .value |= (.value | fromjson));

def world: . as [$items, $memory, $healthy] | $items | {$items, $memory, $healthy, tasks: named("state/tasks/"),
  services: named("config/services/"), clusters: named("config/clusters/"), hosts: named("config/hosts/"),
  alive: named("hosts/live/"), marks: named("hosts/marks/"), statuses: named("status/services/")};

def one($w; $key): $w.items[$key] | if . then .value | fromjson else null end;

# The guard that a key is still as it was read.
def unchanged($w; $key): ["check", $key, $w.items[$key].revision // 0];

def version: "\(.name) \(.version)";

def may_use($cluster; $host): $cluster.hosts == null or ($cluster.hosts | index($host) != null);

# Services that are ours, declared no more or not.
def mine: world | select(.items["meta/store_uid"]) | .statuses + .services | to_entries[] | select(.value.scheduler == $ENV.NAME) | .key;

# Where a service is listed or has tasks.
def clusters_of($w; $name): [($w.clusters | to_entries[] | select($w.services[$name] and (.value.services | index($name))) | .key),
  ($w.tasks[] | select(.service == $name) | .cluster.name)] | unique;

# What the health of a service, or of all that are ours, is asked by.
def names($name): world as $w | if $name == "" then mine else $name end | clusters_of($w; .)[] + "-" + . | @uri;

# Since when hosts are away, and when who rejected what. It may be lost, and nothing depends on it.
def remembered: world as $w | ([$w.tasks[].host] | unique) as $used
  | ($used - ($w.alive | keys) | map({key: ., value: ($w.memory.away[.] // now)})) as $away
  # Where so many are away rather the way to them is broken, and they run on.
  | {away: (if ($away | length) > ([2, ($used | length) * 0.3] | max) then {} else ($away | from_entries) end),
     rejected: ([$w.tasks | to_entries[] | select(.value.rejected) | {"\(.value.host) \(.value.task_definition | version)":
       {"\(unchanged($w; "state/tasks/\(.key)"))": now}}] | reduce .[] as $one ({}; . * $one) | . * $w.memory.rejected)};

def is_lost($w): . as $host | $w.memory.away | has($host) and now - .[$host] >= ($ENV.LOST_AFTER | tonumber);

def is_avoided($w): $w.memory.rejected[.] | . != null and now < ([.[]] | max) + ([300, 2.5 * pow(2; length)] | min);

# What one task takes: what its definition says, or the sum over the containers.
def needs: def total(f): [.containers // [] | .[] | f // 0] | add // 0;
  def or_total(f): if (f // 0) > 0 then f else total(f) end;
  {memory: or_total(.memory), cpu_units: or_total(.cpu_units), disk: total(.disk_use)};

# Those ports that a task more may be given, from the `$start`-th of the host's on; 0 where it needs none.
def ports($host; $there; $definition; $start): if $definition.provide_port then $host.port_range else [$definition.port // 0 | ., .] end
  | . as [$first, $last] | ($last - $first + 1) as $size | ($host.ports + [$there[].port] - [0]) as $taken
  | range($size) | $first + ($start + .) % $size | select([.] - $taken != []);

# Why a host takes no more; empty if it does. `$there`: the tasks that take something of it.
def refusals($w; $host; $there; $cluster; $definition):
  [(select(may_use($cluster; $host.name) | not) | "not among the hosts of cluster \($cluster.name)"),
   (select($w.alive[$host.name] == null) | "its agent is not running"),
   ($w.marks[$host.name] // empty | .state),
   (select("\($host.name) \($definition | version)" | is_avoided($w)) | "rejected one lately"),
   ([$definition.containers // [] | .[].type] - $host.executors | .[] | "no executor \(.)"),
   ($definition | needs | to_entries[] | . as {key: $what, value: $wanted}
     | ($host[$what] - ([$there[].task_definition | needs[$what]] | add // 0)) | select($wanted > .) | "\($what): free \(.) < \($wanted)"),
   (select(isempty(ports($host; $there; $definition; 0))) | "no port is free")];

# Issue up to `$left` more, each where there are fewest of those that are to stay, as long as hosts are found.
def issue($left; $w; $name; $cluster; $definition; $seed): if $left <= 0 then . else
  . as $s | ($w.hosts | map_values(.name as $host | [$s.tasks[] | select(.host == $host and (.rejected | not))])) as $there
  | ($w.hosts | map_values(refusals($w; .; $there[.name]; $cluster; $definition))) as $found
  | [.good + .new | .[] | $s.tasks[.].host] as $used
  | ([$found | keys[] | select($found[.] == [])] | min_by([. as $host | ($used | map(select(. == $host)) | length), $host])) as $host
  | if $host == null then .refused = ($found | to_entries[:100] | from_entries) else
      "\($cluster.name)-\($name)-\($definition.version)-" as $start
      | first(range(1e9) | select($start + "\(.)" | $s.tasks[.] == null and $w.tasks[.] == null)) as $instance
      | first(ports($w.hosts[$host]; $there[$host]; $definition; $seed + $left)) as $port  # one just left had better rest
      | .tasks[$start + "\($instance)"] = {$cluster, task_definition: $definition, service: $name, $instance, $port, $host,
          scheduled: true, rejected: false, reject_reason: ""}
      | .new += [$start + "\($instance)"] | issue($left - 1; $w; $name; $cluster; $definition; $seed)
    end
  end;

# Bring .tasks, all that there are, nearer to what a service wants in one cluster; .status and .done say how far it is.
def plan($w; $name; $key; $seed):
  $w.clusters[$key] as $cluster | $w.services[$name] as $service
  | ($service and $cluster and ($cluster.services | index($name) != null)) as $wanted
  | (if $wanted then $service else {desired: 0, min: 0, max: 0} end) as {$desired, $min, $max}
  | "config/task_definitions/\($service.task_name)/\($service.task_version)" as $its
  | (if $wanted then one($w; $its) else null end) as $definition | .tasks as $t
  | [$t | to_entries[] | select(.value.service == $name and .value.cluster.name == $key) | .key] as $own
  | if $wanted and ($definition == null or $service.placement) then
      .done = false | .status[$key] = {$desired, issued: ($own | length), waiting: 0, hosts: {}, blocked:
        (if $definition then "\($ENV.NAME) knows no placement rules" else "there is no \($its)" end)}
    else
      def mark: $w.marks[$t[.].host];
      def may_stay: $wanted and mark.state != "draining" and may_use($cluster; $t[.].host);
      def well: . as $id | $w.healthy | index($id) != null;
      # A task is a hole, which runs no more; or is being stopped; or is good; or is old, and has to be replaced.
      [(one($w; "scheduling/moves/\($name)") // {moves: []}).moves[].task] as $moved
      | [$own[] | select($t[.].rejected or ($t[.].host | is_lost($w)))] as $holes
      | [$own - $holes | .[] | select($t[.].scheduled == false)] as $stopping
      | ($own - $holes - $stopping) as $running
      | [$running - $moved | .[] | select(may_stay and ($t[.].task_definition | version) == ($definition | version))] as $good
      | ($running - $good) as $old
      # Issue what is missing, each in the stead of a hole, but never more than `max` at once.
      | .good = $good | .new = [] | .refused = {}
      | issue([$desired - ($good | length), $max - ($running + $stopping | length), 16 - ([$holes | length, 8] | min)] | min;
          $w; $name; $cluster; $definition; $seed)
      | .new as $new | .refused as $refused | ($good + $new) as $stay | ($desired - ($stay | length)) as $missing
      | ($holes | sort_by($t[.].rejected) | if $missing <= 0 then . else .[:$new | length] end) as $gone  # who may yet run first
      # Withdraw what is too much, and what is old once what replaces it is healthy or, where there is no room for that,
      # as far as `min` allows. While nothing can be placed elsewhere, nothing leaves its host for that.
      | [$stay[] | select(well | not)] as $waits_for
      | ([$good | sort_by([(well | not), $t[.].instance]) | .[$desired:][]] + [$old[] | select(($wanted | not) or mark.force)]) as $always
      | [$old - $always | .[] | select($waits_for == [] and (may_stay or $refused == {}))] as $may
      | ([$running - $always | .[] | select(well)] | length - $min) as $spare
      | ([$may[] | select(well | not)] + [$may[] | select(well)][:[0, $spare] | max]) as $may
      | ($running - $always | length - $desired) as $surplus
      | ($always + $may[:[$surplus, if $stopping + $always == [] then 1 else 0 end] | max]) as $leaving
      | reduce $gone[] as $id (.; del(.tasks[$id]))
      | reduce $leaving[] as $id (.; .tasks[$id].scheduled = false)  # its agent stops it, and removes the keys
      | .done = (.done and $old + $leaving + $waits_for == [] and $missing == 0)
      | .status[$key] = {$desired, issued: ($running + $new - $leaving | length), hosts: $refused,
          waiting: (if $refused == {} then 0 else $missing end), blocked:
            (if $old == [] or $leaving + $stopping != [] then ""
             elif $waits_for != [] then "waiting for \($waits_for[0]) to become healthy" else "min and max leave no room" end)}
    end;

# The operations that bring a service on, as many as fit into one commit: 16 changes of 3 operations each, as Consul takes
# 64 in a transaction; [] if there is nothing to do.
def work($name; $seed): world as $w | clusters_of($w; $name) as $clusters
  | ["status/services/", "scheduling/rollouts/", "scheduling/moves/"] as [$said, $under_way, $asked]
  | [unchanged($w; "config/services/\($name)", "scheduling/changed/\($name)")] as $guards
  | if ($w.services[$name] | not) and $clusters == [] then  # deleted, and the last task gone: nothing is left to say
      $guards + [($said, $under_way, $asked | . + $name), "rollouts/\($name)/" | ["delete", .]]
    else
      reduce $clusters[] as $key ({tasks: $w.tasks, status: {}, done: true}; plan($w; $name; $key; $seed))
      | . as $s | [$w.tasks + .tasks | keys[] | select($w.tasks[.] != $s.tasks[.])][:16] as $changed
      | one($w; $said + $name) as $was | one($w; $under_way + $name) as $rollout | one($w; $asked + $name) as $moves
      | [$moves // {moves: []} | .moves[] | select($w.tasks[.task])] as $left
      | [($changed[] | . as $id | $s.tasks[.] as $task | unchanged($w; "state/tasks/\(.)"),
          ("state/tasks/\($id)", "state/hosts/\($task.host // $w.tasks[$id].host)/\($id)"
            | if $task then ["put", ., ($task | tojson)] else ["delete", .] end)),
         (select($changed != []) | ["put", "scheduling/changed/\($name)", $ENV.NAME]),  # Sked's count what our tasks take
         ({scheduler: $ENV.NAME, clusters: .status, decisions: 0} | select(. != $was) | ["put", $said + $name, tojson]),
         (select($rollout and .done) | $rollout + {result: "succeeded", ended: (now | todate)} | ["delete", $under_way + $name],
           ["put", "rollouts/\($name)/\(.number)", tojson], ["delete", "rollouts/\($name)/\(.number - 20)"]),
         (select($moves and $left != $moves.moves)
           | if $left == [] then ["delete", $asked + $name] else ["put", $asked + $name, ($moves + {moves: $left} | tojson)] end)]
      | if . == [] then . else $guards + . end
    end;
