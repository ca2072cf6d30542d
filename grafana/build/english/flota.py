"""«Monitor de Flota» in English."""

from __future__ import annotations

FLOTA = {
    "Monitor de Flota": "Fleet Monitor",
    "Todos los equipos de una central: cuáles callan, a cuáles creer, y qué pasó.": (
        "All hosts of a centre: which are silent, which to believe, and what happened."
    ),
    "Equipo": "Host",
    "Equipos": "Hosts",
    "Equipos inscritos en la central": "Hosts enrolled at the centre",
    "Sin datos: ningún equipo envió nada de este rango": (
        "No data: no host shipped anything of this range"
    ),
    "Al día": "Up to date",
    "Silenciosos": "Silent",
    "Nunca vistos": "Never seen",
    "Equipos inscritos que llamaron en los últimos 15 minutos, los que callan desde hace más y los "
    "que nunca llamaron. Es de ahora, no del rango.": (
        "Enrolled hosts that called within the last 15 minutes, those that have been silent for "
        "longer and those that never called. It is of now, not of the range."
    ),
    "Mediana": "Median",
    "Peor": "Worst",
    "Retraso": "Lag",
    "Edad del último tramo de 5 minutos que llegó de cada equipo que no calla, desde su cierre: la "
    "mediana y el peor. Dos envíos es lo normal.": (
        "Age of the last bucket of 5 minutes that came from each host that is not silent, since it "
        "was closed: the median and the worst. Two flushes are usual."
    ),
    "RAM usada": "RAM used",
    "RAM total": "RAM in total",
    "La Flota Ahora": "The Fleet Now",
    "Suma del último tramo de cada equipo en el rango: contenedores en marcha, RAM usada y RAM "
    "total.": (
        "Sum of each host's last bucket in the range: running containers, RAM used and RAM in "
        "total."
    ),
    "Bifurcaciones": "Forks",
    "Huecos": "Gaps",
    "En todos los equipos elegidos: contenedores eliminados, eliminaciones fallidas, procesos "
    "muertos por falta de memoria (OOM), historias bifurcadas (un disco clonado o una copia "
    "antigua) y huecos de filas que no llegaron.": (
        "On all chosen hosts: containers removed, removals that failed, processes killed for lack "
        "of memory (OOM), histories that forked (a cloned disk or an old copy) and gaps of rows "
        "that did not come."
    ),
    "Estado": "State",
    "Confianza": "Trust",
    "Visto hace": "Seen ago",
    "Ticks en conflicto": "Ticks in conflict",
    "Filas que faltan": "Rows missing",
    "Versión": "Version",
    "Lista de Equipos": "List of Hosts",
    "Los que callan primero, luego los que no son de fiar. Un clic en el nombre muestra solo ese "
    "equipo. Confianza: en conflicto si los dos testigos discreparon en un tick del rango; "
    "incompleto si perdió eventos, se bifurcó o le faltan filas; sin verificar si BPF o los "
    "módulos no estaban.": (
        "The silent ones first, then those that cannot be trusted. A click on the name shows only "
        "that host. Trust: in conflict where the two witnesses differed at a tick of the range; "
        "incomplete where events were lost, the history forked or rows are missing; unverified "
        "where BPF or the modules were not there."
    ),
    "Ver solo ${__value.text}": "See only ${__value.text}",
    "silencioso": "silent",
    "nunca visto": "never seen",
    "de fiar": "trusted",
    "en conflicto": "in conflict",
    "incompleto": "incomplete",
    "sin datos": "no data",
    "RAM por Equipo en el Tiempo": "RAM by Host over Time",
    "RAM usada entre la total, media de cada intervalo, de los $top equipos con más en el rango.": (
        "RAM used by the total, mean of each interval, of the $top hosts with most in the range."
    ),
    "de su RAM": "of its RAM",
    "CPU por Equipo en el Tiempo": "CPU by Host over Time",
    "Porcentaje de todas las CPU del equipo, media de cada intervalo, de los $top equipos con más "
    "en el rango.": (
        "Percent of all CPUs of the host, mean of each interval, of the $top hosts with most in "
        "the range."
    ),
    "Contenedores de la flota": "Containers of the fleet",
    "Top $top Contenedores de la Flota por RAM": "Top $top Containers of the Fleet by RAM",
    "Los que más RAM retuvieron en cualquier equipo: su máximo en un tick del rango.": (
        "Those that held most RAM on any host: their maximum at a tick of the range."
    ),
    "Top $top Contenedores de la Flota por CPU": "Top $top Containers of the Fleet by CPU",
    "Los que más CPU gastaron en cualquier equipo: media mientras existieron; 100 % es una CPU.": (
        "Those that used most CPU on any host: mean while they existed; 100 % is one CPU."
    ),
    "Retenida (máximo)": "Held (maximum)",
    "Retenida (media)": "Held (mean)",
    "Contenedores Mayores": "Largest Containers",
    "Los 50 contenedores que más RAM retuvieron en el rango, de todos los equipos elegidos.": (
        "The 50 containers that held most RAM in the range, of all chosen hosts."
    ),
    "Eliminaciones y muertes por OOM": "Removals and OOM kills",
    "Regla": "Rule",
    "Cuántas": "How many",
    "La última": "The last",
    "Eliminaciones por Equipo y Regla": "Removals by Host and Rule",
    "Decisiones del rango por equipo, la regla que decidió, motivo, nivel y resultado, y cuánta "
    "RAM retenían esos contenedores en suma.": (
        "Decisions of the range by host, the rule that decided, reason, tier and outcome, and how "
        "much RAM those containers held in sum."
    ),
    "Otros motivos": "Other reasons",
    "Eliminaciones en el Tiempo": "Removals over Time",
    "Eliminaciones conseguidas de todos los equipos elegidos por motivo, y las que fallaron. 0 es "
    "que no hubo ninguna.": (
        "Removals that succeeded on all chosen hosts by reason, and those that failed. 0: there "
        "was none."
    ),
    "Muertes por OOM": "OOM Kills",
    "Procesos que el kernel mató por falta de memoria en el rango, por contenedor, proceso y "
    "causa, y cuánta memoria tenían. De un equipo que nunca envió ninguno se cuenta lo que dice "
    "memory.events de sus contenedores, por tramos y sin proceso.": (
        "Processes that the kernel killed for lack of memory in the range, by container, process "
        "and cause, and how much memory they had. Of a host that never sent one it is what "
        "memory.events of its containers counted, by bucket and without the process."
    ),
    "Tenía (máximo)": "It Had (max.)",
    "Motor": "Engine",
    "Muertes por OOM en el Tiempo": "OOM Kills over Time",
    "Procesos muertos por falta de memoria en todos los equipos elegidos, también los de ningún "
    "contenedor. 0 es que no hubo ninguno.": (
        "Processes killed for lack of memory on all chosen hosts, also those of no container. 0: "
        "there was none."
    ),
    "Atribución de la Flota en el Tiempo": "Attribution of the Fleet over Time",
    "Procesos de contenedores de todos los equipos elegidos por veredicto: suma de la media de "
    "cada equipo en el intervalo.": (
        "Containers' processes of all chosen hosts by verdict: sum of each host's mean in the "
        "interval."
    ),
    "Conflictos y Pérdidas en el Tiempo": "Conflicts and Losses over Time",
    "Ticks en los que los dos testigos discreparon en algún proceso, y eventos de BPF que se "
    "perdieron, en suma. 0 es que no hubo ninguno.": (
        "Ticks at which the two witnesses differed on a process, and BPF events that were lost, in "
        "sum. 0: there was none."
    ),
    "por intervalo": "per interval",
    "Qué": "What",
    "Flujo": "Stream",
    "Primera fila": "First row",
    "Última fila": "Last row",
    "Bifurcaciones y Huecos": "Forks and Gaps",
    "Historias que no siguen a la que la central conocía (disco clonado, copia antigua, base "
    "nueva) y filas que se borraron antes de llegar. Los últimos 200, de cualquier fecha.": (
        "Histories that do not follow the one that the centre knew (a cloned disk, an old copy, a "
        "new database) and rows that were deleted before they came. The last 200, of any date."
    ),
    "bifurcación": "fork",
    "empezó de nuevo": "began again",
    "hueco": "gap",
    "Tamaño": "Size",
    "Días": "Days",
    "Fuera de plazo": "Out of range",
    "Tamaño por Flujo": "Size by Stream",
    "Lo que ocupa cada flujo en la central con sus índices, los días que abarcan sus particiones, "
    "y las filas de un reloj equivocado, que se guardan aparte.": (
        "What each stream takes at the centre with its indexes, the days that its partitions "
        "cover, and the rows of a wrong clock, which are kept apart."
    ),
    "Crecimiento por Día": "Growth by Day",
    "Bytes de cada día con sus índices, por flujo: por él se sabe cuánto disco hará falta. El de "
    "hoy no está completo.": (
        "Bytes of each day with its indexes, by stream: they tell how much disk will be needed. "
        "Today's are not complete."
    ),
    "por día": "per day",
    "Los equipos elegidos, de cerca": "The chosen hosts, close up",
    "RAM Retenida por Contenedor en el Tiempo": "RAM Held by Container over Time",
    "RAM retenida en los equipos elegidos, apilada por contenedor: los 12 mayores del rango por su "
    "nombre y el resto junto; los de igual nombre en varios equipos, en suma.": (
        "RAM held on the chosen hosts, stacked by container: the 12 largest of the range by their "
        "name and the rest together; those of one name on several hosts in sum."
    ),
    "Paradas del Agente": "Stops of the Agent",
    "Cuándo y cuánto tiempo no corrió el agente de los equipos elegidos, en el rango.": (
        "When and for how long the agent of the chosen hosts did not run, in the range."
    ),
    "Las últimas 200 decisiones del rango en los equipos elegidos: qué, por qué y cómo acabó. "
    "«Decisión» es el identificador del registro de aquel agente.": (
        "The last 200 decisions of the range on the chosen hosts: what, why and how it ended. "
        "“Decision” is the id in that agent's log."
    ),
    "Los equipos elegidos, minuto a minuto y por proceso": (
        "The chosen hosts, minute by minute and by process"
    ),
    "CPU y RAM por Minuto": "CPU and RAM by Minute",
    "Porcentaje de todas las CPU y de la RAM del equipo, minuto a minuto, de los $top equipos con "
    "más CPU: el último día del rango si se eligen equipos, la última hora si no. Solo de los que "
    'tienen resolution = "60s".': (
        "Percentage of all CPUs and of the RAM of the host, minute by minute, of the $top hosts "
        "with most CPU: the last day of the range where hosts are chosen, else the last hour. Only "
        'of those with resolution = "60s".'
    ),
    "del equipo": "of the host",
    'Sin minutos: ningún equipo elegido tiene resolution = "60s" en [fleet]': (
        'No minutes: no chosen host has resolution = "60s" in [fleet]'
    ),
    "RAM Retenida por Contenedor y Minuto": "RAM Held by Container and Minute",
    "RAM retenida en los equipos elegidos, minuto a minuto, apilada por contenedor: los 12 mayores "
    "por su nombre y el resto junto.": (
        "RAM held on the chosen hosts, minute by minute, stacked by container: the 12 largest by "
        "their name and the rest together."
    ),
    "Procesos Mayores": "Largest Processes",
    "Los 50 procesos con más RAM en el rango, de los que cada equipo envía: los 20 mayores de cada "
    'tramo. Solo de los que tienen processes = "top:20". Los nombres son palabra de la carga.': (
        "The 50 processes with most RAM in the range, of those that each host ships: the 20 "
        'largest of each bucket. Only of those with processes = "top:20". The names are the '
        "workload's word."
    ),
    'Sin procesos: ningún equipo elegido tiene processes = "top:20" en [fleet]': (
        'No processes: no chosen host has processes = "top:20" in [fleet]'
    ),
    "RAM (máximo)": "RAM (max.)",
    "RAM (media)": "RAM (mean)",
    "CPU (máximo)": "CPU (max.)",
    "CPU (media)": "CPU (mean)",
    "CPU por Proceso en el Tiempo": "CPU by Process over Time",
    "CPU de los procesos de los equipos elegidos, apilada por nombre: los 12 mayores del rango y "
    "el resto junto, también los que no se envían uno a uno. 100 % es una CPU.": (
        "CPU of the chosen hosts' processes, stacked by name: the 12 largest of the range and the "
        "rest together, also those that are not shipped one by one. 100 % is one CPU."
    ),
}
