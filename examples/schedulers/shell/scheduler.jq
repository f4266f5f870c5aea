# What scheduler.sh decides with: pure functions of what stands in the store. Raises for what can't be read, and then
# nothing is done: unreadable is not absent.

# Whether it can be a name. What has another one Sked does not know either, and it might say something to a shell.
def fits: test("\\A[A-Za-z0-9._-]+\\z");

def named(prefix):
  to_entries | map(select(.key | startswith(prefix)) | {key: .key | ltrimstr(prefix), value: .value.value | fromjson})
  | map(select(.key | fits)) | from_entries;

def world:
  {items: ., tasks: named("state/tasks/"), services: named("config/services/"), clusters: named("config/clusters/"),
   hosts: named("config/hosts/"), marks: named("hosts/marks/"), alive: named("hosts/live/") | keys,
   statuses: named("status/services/")};

# The guard that a key is still as it was read.
def unchanged($w; $key): ["check", $key, $w.items[$key].revision // 0];

def one($w; $key): $w.items[$key] | if . then .value | fromjson else null end;

# Services that we place, and those that are declared no more whose status says that we did.
def mine($name):
  world | .services as $declared | (.statuses | with_entries(select($declared[.key] | not))) + $declared
  | to_entries | map(select(.value.scheduler == $name) | .key)[];

def listing($w; $name): [$w.clusters[] | select($w.services[$name] and (.services // [] | index($name))) | .name | select(fits)];

def placed_in($w; $name): [$w.tasks[] | select(.service == $name) | .cluster.name | select(fits)];

# Since when hosts have been away, and who rejected what: what is remembered from one round to the next.
def look($memory; $now):
  world as $w | ([$w.tasks[].host] | unique) as $used | ($used - $w.alive) as $absent
  # Where so many are away rather the way to them is broken: doubling their tasks would make it worse.
  | (if $w.alive != [] and ($absent | length) <= ([2, ($used | length) * 0.3] | max) then $absent else [] end)
  | map({key: ., value: ($memory.away[.] // $now)}) | from_entries as $away
  | [$w.tasks | to_entries[] | select(.value.rejected) | {why: .value.reject_reason,
       seen: "\(unchanged($w; "state/tasks/\(.key)"))",
       what: "\(.value.host) \(.value.service) \(.value.task_definition.version)"}] as $rejected
  | reduce ($rejected[] | select([.seen] - $memory.noted != [])) as $one ($memory.rejections;
      ((.[$one.what].count // 0) + 1) as $count
      | .[$one.what] = {$count, until: ($now + ([300, 5 * pow(2; $count - 1)] | min)), why: $one.why})
  | {away: $away, noted: ($rejected | map(.seen)), rejections: .};

# What one task takes: what its definition says, or the sum over the containers.
def needs:
  def total(f): [.containers // [] | .[] | f // 0] | add // 0;
  def said($what; f): if (.[$what] // 0) > 0 then .[$what] else total(f) end;
  {memory: said("memory"; .memory), cpu_units: said("cpu_units"; .cpu_units), disk: total(.disk_use)};

# The free ports of the host's range, from the `$start`-th on.
def free_ports($there; $host; $start):
  (($host.ports // []) + [$there[].port]) as $taken | ($host.port_range // [20000, 29999]) as [$first, $last] | ($last - $first + 1) as $size
  | range($size) | $first + ($start + .) % $size | select([.] - $taken != []);

# Why `$host` takes no more task. `$tasks`: all that are there, those about to be included.
def refusals($w; $tasks; $host; $service; $cluster; $definition; $avoided):
  ($tasks | map(select(.host == $host.name and (.rejected | not)))) as $there
  | ([$definition.containers // [] | .[].type] | unique - ($host.executors // [])) as $lacking
  | ($definition.port // 0) as $port
  | [(select($cluster.hosts and ($cluster.hosts | index($host.name) | not))
        | "not among the hosts of cluster \($cluster.name)"),
     (select($w.alive | index($host.name) | not) | "its agent is not running"),
     ($w.marks[$host.name] // empty | .state),
     ($avoided["\($host.name) \($service) \($definition.version)"] // empty | "rejected one: \(.why)"),
     (select($lacking != []) | "no executor \($lacking | join(", "))"),
     ($definition | needs | to_entries[] | . as {key: $what, value: $wanted}
        | (($host[$what] // 0) - ([$there[].task_definition | needs[$what]] | add // 0))
        | select($wanted > .) | "\($what): free \(.) < \($wanted)"),
     (select($definition.provide_port and isempty(free_ports($there; $host; 0))) | "no port is free"),
     (select($port > 0 and (($host.ports // []) + [$there[].port] | index($port))) | "port \($port) is taken")];

# --- the plan of one service: .tasks as they will be, .changes by id (null: both keys go), .status by cluster ----------

def change($id; $task):
  .changes[$id] = $task | if $task then .tasks[$id] = $task else del(.tasks[$id]) end;

# Issue up to `$left` more, as long as hosts are found.
def issue($left; $w; $name; $cluster; $definition; $avoided; $seed):
  if $left <= 0 then . else
    [.tasks[]] as $tasks | [.tasks[.good[]].host] as $there  # spread those that are to stay
    | ($w.hosts | map_values(refusals($w; $tasks; .; $name; $cluster; $definition; $avoided))) as $found
    | ([$found | to_entries[] | select(.value == []) | .key]
        | min_by([. as $host | ($there | map(select(. == $host)) | length), $host])) as $key
    | if $key == null then
        .waiting = ($w.services[$name].desired - (.good | length)) | .refused = ($found | to_entries[:100] | from_entries)
      else
        $w.hosts[$key] as $host | "\($cluster.name)-\($name)-\($definition.version)-" as $start
        | (if .holes != [] then change(.holes[0]; null) | .holes |= .[1:] else . end)
        | .tasks as $now | first(range(1e9) | select($now[$start + "\(.)"] | not)) as $instance
        # Not the lowest port: one that was just left had better rest.
        | first((select($definition.provide_port) | free_ports([$now[] | select(.host == $key)]; $host; $seed + $left)),
            $definition.port // 0) as $port
        | change($start + "\($instance)"; {$cluster, task_definition: $definition, service: $name, $instance, $port,
            host: $key, scheduled: true, rejected: false, reject_reason: ""})
        | .good += [$start + "\($instance)"]
        | issue($left - 1; $w; $name; $cluster; $definition; $avoided; $seed)
      end
  end;

def plan_cluster($w; $name; $key; $healthy; $lost; $avoided; $batch; $seed):
  $w.clusters[$key] as $cluster | $w.services[$name] as $service | (listing($w; $name) | index($key)) as $wanted
  | (if $wanted then $service else {desired: 0, min: 0, max: 0} end) as {$desired, $min, $max}
  | "config/task_definitions/\($service.task_name)/\($service.task_version)" as $its
  | (if $wanted then one($w; $its) else null end) as $definition
  | def may_stay: . as $host | $cluster and $w.marks[$host].state != "draining"
      and ($cluster.hosts == null or ($cluster.hosts | index($host)));
    def same: $definition and .name == $definition.name and .version == $definition.version;
    def is_lost: . as $host | $lost | index($host) != null;
    def well: . as $id | $healthy | index($id) != null;
    if $wanted and ($definition == null or $service.placement) then
      .rolled_out = false | .status[$key] = {$desired, waiting: 0, hosts: {}, blocked:
        (if $definition then "\($ENV.NAME) knows no placement rules" else "there is no \($its)" end)}
    else
      .tasks as $t
      | ([$t | to_entries[] | select(.value.service == $name and .value.cluster.name == $key)]
          | sort_by(.value.instance) | map(.key)) as $own
      | [(one($w; "scheduling/moves/\($name)") // {moves: []}).moves[].task] as $moved
      | [$own[] | select($t[.].scheduled == false)] as $stopping
      | [$own - $stopping | .[] | select($t[.].rejected or ($t[.].host | is_lost))] as $holes
      | ($own - $stopping - $holes) as $running
      | [$running - $moved | .[] | select(($t[.].task_definition | same) and ($t[.].host | may_stay))] as $good
      | ($running - $good) as $old
      # What is issued as `scheduled` false is stopped by its agent, which then removes the keys.
      | [$good | sort_by(well | not) | .[$desired:][]] as $surplus
      # Nobody is left on a lost host to confirm that it is gone. Of holes, those that may yet run go first.
      | reduce ($stopping[] | select($t[.].host | is_lost)) as $id (.; change($id; null))
      | .good = $good | .holes = ($holes | sort_by($t[.].rejected)) | .waiting = 0 | .refused = {}
      # Issue what is missing, but never more than `max` at once.
      | issue([$desired - ($good | length), $max - ($good + $old + $stopping | length), $batch] | min;
          $w; $name; $cluster; $definition; $avoided; $seed)
      | if (.good | length) >= $desired then reduce .holes[] as $id (.; change($id; null)) else . end
      # Replace what is of another version, or has to leave its host, once what takes its place is healthy; where there
      # is no room for a replacement make some, as far as `min` allows.
      | [.good[] | select(well | not)] as $waits_for | .waiting as $waiting
      | ((.good + $old | length) - $desired | if . <= 0 and $stopping == [] then 1 else . end) as $over
      | (([.good + $old | .[] | select(well)] | length) - $min) as $spare
      | [$old[] | select($w.marks[$t[.].host].force or ($wanted | not))] as $forced
      | [$old - $forced | sort_by(well) | .[] | select($waiting == 0 or ($t[.].host | may_stay))] as $may
      | [$may[] | select(well | not)] as $unwell | ($may - $unwell) as $others
      | (if $waits_for != [] then [] else ($unwell + $others[:([0, $spare] | max)])[:([0, $over] | max)] end) as $replaced
      | reduce ($surplus + $forced + $replaced)[] as $id (.; change($id; $t[$id] + {scheduled: false}))
      | .rolled_out = (.rolled_out and $old == [] and $waits_for == [] and (.good | length) == $desired)
      | .status[$key] = {$desired, $waiting, hosts: .refused, blocked:
          (if $old == [] or $stopping + $forced + $replaced != [] then ""
           elif $waits_for != [] then "waiting for \($waits_for[0]) to become healthy"
           else "min and max leave no room" end)}
    end;

# The operations that bring a service on, as many as fit into one commit; [] if there is nothing to do.
def work($name; $memory; $healthy; $now; $lost_after; $batch; $seed):
  world as $w
  | [$memory.away | to_entries[] | select($now - .value >= $lost_after) | .key] as $lost
  | ($memory.rejections | with_entries(select(.value.until > $now))) as $avoided
  | reduce (listing($w; $name) + placed_in($w; $name) | unique[]) as $key
      ({tasks: $w.tasks, changes: {}, status: {}, rolled_out: true};
       plan_cluster($w; $name; $key; $healthy; $lost; $avoided; $batch; $seed))
  | ["status/services/\($name)", "scheduling/rollouts/\($name)", "scheduling/moves/\($name)"] as [$said, $rollout, $moves]
  | (.changes | to_entries[:$batch]) as $changes | .rolled_out as $rolled_out
  | if ($w.services[$name] | not) and .status == {} then  # deleted, and the last task gone: nothing is left to say
      [["check", "config/services/\($name)", 0], ([$said, $rollout, $moves, ($w.items | keys[] | select(startswith("rollouts/\($name)/")))][] | ["delete", .])]
    else
      (reduce $changes[] as $one ($w.tasks; .[$one.key] = $one.value)) as $after
      | ([.status | to_entries[] | .key as $cluster | .value.issued = ([$after[] | select(. and .service == $name
            and .cluster.name == $cluster and .scheduled != false and (.rejected | not))] | length)] | from_entries) as $clusters
      | one($w; $moves) as $asked | [$asked // {moves: []} | .moves[] | select($w.tasks[.task])] as $left
      | one($w; $rollout) as $under_way
      | [($changes[] | . as {key: $id, value: $task} | $w.tasks[$id].host as $before
            | unchanged($w; "state/tasks/\($id)"),
              (select($before and $before != $task.host) | ["delete", "state/hosts/\($before)/\($id)"]),
              (if $task then ["state/tasks/\($id)", "state/hosts/\($task.host)/\($id)"][] | ["put", ., ($task | tojson)]
               else ["delete", "state/tasks/\($id)"] end)),
         (select($changes != []) | ["put", "scheduling/changed/\($name)", $ENV.NAME]),
         ({scheduler: $ENV.NAME, $clusters, decisions: 0} | select(. != one($w; $said)) | ["put", $said, tojson]),
         (select($under_way and $rolled_out) | $under_way + {result: "succeeded", ended: ($now | todate)}
            | ["delete", $rollout], ["put", "rollouts/\($name)/\(.number)", tojson],
              ["delete", "rollouts/\($name)/\(.number - 20)"]),
         (select($asked and $left != $asked.moves)
            | if $left == [] then ["delete", $moves] else ["put", $moves, ($asked + {moves: $left} | tojson)] end)]
      | if . == [] then . else
          [unchanged($w; "config/services/\($name)"), unchanged($w; "scheduling/changed/\($name)")] + . end
    end;
