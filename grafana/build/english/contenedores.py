"""«Monitor de Contenedores» in English."""

from __future__ import annotations

CONTENEDORES = {
    "Monitor de Contenedores": "Container Monitor",
    "Abre «Monitor de Contenedores» con el mismo rango": (
        "Opens “Container Monitor” with the same range"
    ),
    "Contenedores vistos en el rango, los actuales primero": (
        "Containers seen in the range, the present ones first"
    ),
    "Nivel de consumo en el que compite un contenedor": "Tier of use in which a container competes",
    "Qué retiene y qué gasta cada contenedor, cuáles se eliminaron y por qué, y sus procesos.": (
        "What each container holds and uses, which were removed and why, and its processes."
    ),
    "Contenedores en Marcha": "Running Containers",
    "Contenedores en marcha sin contar Grafana, después de las eliminaciones de cada tick. "
    "Vacío: Docker no respondió.": (
        "Running containers without Grafana, after each tick's removals. Empty: Docker did not "
        "answer."
    ),
    "CPU Usada": "CPU Used",
    "RAM Usada y CPU Usada": "RAM Used and CPU Used",
    "Los contenedores elegidos contra todo el equipo en el último tick: RAM retenida entre la "
    "RAM total, y CPU entre todas las CPU.": (
        "The chosen containers against the whole host at the last tick: held RAM by total RAM, "
        "and CPU by all CPUs."
    ),
    "Suma de los contenedores elegidos en el último tick. Retenida: lo que devuelve su fin (anon "
    "+ shmem + kernel menos slab recuperable del cgroup). RSS: páginas residentes de sus "
    "espacios de memoria distintos. Caché: páginas de ficheros, recuperables.": (
        "Sum of the chosen containers at the last tick. Held: what their end gives back (anon + "
        "shmem + kernel minus the cgroup's reclaimable slab). RSS: resident pages of their "
        "distinct address spaces. Cache: pages of files, reclaimable."
    ),
    "Sucesos del Rango": "Events of the Range",
    "Contenedores eliminados, eliminaciones fallidas y procesos muertos por falta de memoria "
    "(OOM) en el rango. 0 es que no hubo; vacío, que no hay ticks.": (
        "Containers removed, removals that failed and processes killed for lack of memory (OOM) "
        "in the range. 0: there was none; empty: there are no ticks."
    ),
    "Procesos Verificados": "Processes Verified",
    "Procesos de contenedores del último tick cuyo contenedor nombran igual el módulo y BPF, los "
    "que están en conflicto y los que BPF no vio.": (
        "Containers' processes of the last tick whose container the module and BPF name alike, "
        "those in conflict and those that BPF did not see."
    ),
    "RAM retenida por contenedor, apilada: lo que devolvería su fin. Los 12 mayores del rango "
    "por su nombre y el resto junto. Cada punto es la media de los ticks de su intervalo (de "
    "hasta ocho de ellos), con 0 donde un contenedor no estaba. Más de 12 h se leen por tramos "
    "de 5 minutos, una hora o un día, con los 20 mayores de cada tramo. Interrumpida: sin ticks, "
    "o Docker no respondió.": (
        "RAM held by each container, stacked: what its end would give back. The 12 largest of "
        "the range by their name and the rest together. Each point is the mean of its interval's "
        "ticks (of up to eight of them), with 0 where a container was not there. More than 12 h "
        "are read from buckets of 5 minutes, an hour or a day, with the 20 largest of each. "
        "Broken: no ticks, or Docker did not answer."
    ),
    "RAM Retenida por Contenedor": "RAM Held by Container",
    "Todos los contenedores del último tick (hasta 15), antes de sus eliminaciones.": (
        "All containers of the last tick (up to 15), before its removals."
    ),
    "CPU por contenedor, apilada, según su cgroup; 100 % es una CPU. Los 12 mayores del rango "
    "por su nombre y el resto junto; los puntos, como en la RAM.": (
        "CPU by container, stacked, by its cgroup; 100 % is one CPU. The 12 largest of the range "
        "by their name and the rest together; points as for RAM."
    ),
    "CPU por Contenedor": "CPU by Container",
    "CPU de cada contenedor en el último intervalo (cgroup), repartida: sus procesos vivos, los "
    "que vivieron menos de un tick (BPF) y lo que nadie explica. Sin BPF todo cuenta como "
    "procesos vivos.": (
        "CPU of each container in the last interval (cgroup), split: its living processes, those "
        "that lived for less than a tick (BPF) and what nobody explains. Without BPF all counts "
        "as living processes."
    ),
    "Top $top Contenedores por RAM": "Top $top Containers by RAM",
    "Los que más RAM retuvieron en un tick del rango (su máximo), sobre hasta 200 ticks; en más "
    "de 12 h, entre los 20 mayores de cada tramo.": (
        "Those that held most RAM at a tick of the range (their maximum), of up to 200 ticks; in "
        "more than 12 h, among the 20 largest of each bucket."
    ),
    "Top $top Contenedores por CPU": "Top $top Containers by CPU",
    "Los que más CPU gastaron en el rango: media mientras existieron, sobre hasta 200 ticks; en "
    "más de 12 h, mientras estuvieron entre los 20 mayores de su tramo. 100 % es una CPU.": (
        "Those that used most CPU in the range: mean while they existed, of up to 200 ticks; in "
        "more than 12 h, while they were among the 20 largest of their bucket. 100 % is one CPU."
    ),
    "Reparto de la CPU en el Tiempo": "Split of CPU over Time",
    "La CPU de todos los contenedores elegidos, repartida entre procesos vivos, procesos de vida "
    "corta (BPF) y lo que ninguno explica: las cuentas cierran o se ve el hueco.": (
        "The CPU of all chosen containers, split into living processes, short-lived processes "
        "(BPF) and what neither explains: the accounts balance or the gap is seen."
    ),
    "Lista de Contenedores": "List of Containers",
    "Los contenedores del último tick, antes de sus eliminaciones. Un clic en el nombre muestra "
    "solo ese contenedor y sus procesos. Especiales: procesos añadidos, extraviados o movidos.": (
        "The containers of the last tick, before its removals. A click on the name shows only "
        "that container and its processes. Special: processes that were added, escaped or moved."
    ),
    "Ver ${__value.text} y sus procesos": "See ${__value.text} and its processes",
    "Eliminaciones y sucesos": "Removals and events",
    "Registro de Eliminaciones": "Log of Removals",
    "Las últimas 200 decisiones del rango: en qué orden, por qué, qué retenía, cómo acabó, y la "
    "RAM disponible del equipo antes y después de toda la pasada (por contenedor sería ruido). "
    "«Decisión» es el identificador que también está en el registro del agente.": (
        "The last 200 decisions of the range: in what order, why, what it held, how it ended, "
        "and the host's available RAM before and after the whole pass (by container it would be "
        "noise). “Decision” is the id that is in the agent's log too."
    ),
    "Eliminaciones por Motivo": "Removals by Reason",
    "Decisiones de cada intervalo por motivo, y las que fallaron. 0 es que no hubo ninguna.": (
        "Decisions of each interval by reason, and those that failed. 0: there was none."
    ),
    "Arranques, Salidas y OOM": "Starts, Exits and OOM",
    "Procesos que nacieron y terminaron en los contenedores (BPF) y los que mató el kernel por "
    "falta de memoria en su cgroup, por intervalo. El primero de un contenedor y los de docker "
    "exec nacen fuera y entran: solo cuentan al salir. Sin BPF no hay arranques ni salidas.": (
        "Processes that were born and ended in the containers (BPF) and those that the kernel "
        "killed for lack of memory in their cgroup, by interval. A container's first one and "
        "those of docker exec are born outside and enter: they count only when they exit. "
        "Without BPF there are no starts or exits."
    ),
    "Procesos del contenedor elegido": "Processes of the chosen container",
    "Lista de Procesos": "List of Processes",
    "Procesos de los contenedores elegidos en el último tick, con su RSS exacta, su CPU, si los "
    "dos testigos coinciden, y en qué se basa la atribución.": (
        "Processes of the chosen containers at the last tick, with their exact RSS, their CPU, "
        "whether the two witnesses agree, and what the attribution is based on."
    ),
    "RAM de sus Procesos en el Tiempo": "RAM of its Processes over Time",
    "CPU de sus Procesos en el Tiempo": "CPU of its Processes over Time",
    "Los 12 procesos con más en el rango, de los contenedores elegidos. El detalle por proceso "
    "se guarda 24 h si no se configura otra cosa.": (
        "The 12 processes with most in the range, of the chosen containers. The detail by "
        "process is kept for 24 h unless configured otherwise."
    ),
    "OOM: ": "OOM: ",
    " de ": " of ",
    "; creció ": "; grown: ",
    "Muertes por falta de memoria": "Killed for lack of memory",
    "Causa": "Cause",
    "Límite de": "Limit of",
    "Límite": "Limit",
    "Tenía": "Had",
    "Pedía": "Asked",
    "Creció": "Grew",
    "Cuánto": "How much",
    "Testigos": "Witnesses",
    "Muertes por Falta de Memoria": "Killed for Lack of Memory",
    "Las últimas 200 del rango: a quién mató el kernel, de quién era el límite, quién pedía "
    "memoria, quién había crecido más, y qué testigos lo confirman. La víctima no es siempre "
    "quien creció. Con todo detalle: agent oom.": (
        "The last 200 of the range: whom the kernel killed, whose limit it was, who asked for "
        "memory, who had grown most, and which witnesses confirm it. The victim is not always "
        "the one that grew. In full: agent oom."
    ),
    "límite": "limit",
    "equipo sin memoria": "host out of memory",
    "a mano": "by hand",
    "desconocida": "unknown",
    "Padre": "Parent",
    "Veces": "Times",
    "RAM máxima": "Peak RAM",
    "Ninguno en este rango": "None in this range",
    "Procesos de Vida Corta": "Short-Lived Processes",
    "Los que empezaron y acabaron entre dos ticks, en la última hora del rango, por contenedor, "
    "padre y nombre: los 50 con más CPU. Su suma es la «Vida corta» del reparto. Los nombres son "
    "palabra de la carga.": (
        "Those that began and ended between two ticks, in the last hour of the range, by "
        "container, parent and name: the 50 with the most CPU. Their sum is the “Short-lived” of "
        "the share. The names are the workload's word."
    ),
}
